#!/usr/bin/env python3
"""soak.py BINARY MODEL SECONDS OUT - 64 clients against 16 sequences, a third of them hanging up.

Every answer must be complete, or refused with 503 and Retry-After; in the end no sequence, no
connection and no file may be held, and memory must not have grown. Results in OUT/soak.tap."""

import collections
import http.client
import json
import pathlib
import random
import socket
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tools"))
from daemon import Daemon, Tap

CLIENTS, SEQUENCES, QUEUE = 64, 16, 24
WORDS = "the king and a small cat went to sea in an old boat with three apples".split()
TELLS = ["Hello!", "Tell me a story.", "What is the capital of France?", "Count to ten.", "Who are you?"]


def make_request(rng):
    """-> path, body; streams two times out of three."""
    body = {"stream": rng.random() < 0.67, "temperature": rng.choice([0, 0.8]),
            "seed": rng.randrange(1000)}
    if rng.random() < 0.5:
        turns = [{"role": "user", "content": rng.choice(TELLS)}]
        if rng.random() < 0.3:
            turns += [{"role": "assistant", "content": " ".join(rng.choices(WORDS, k=20))},
                      {"role": "user", "content": rng.choice(TELLS)}]
        return "/v1/chat/completions", body | {"messages": turns,
                                               "max_completion_tokens": rng.randrange(1, 120)}
    prompt = " ".join(rng.choices(WORDS, k=rng.choice([1, 10, 100, 800])))
    return "/v1/completions", body | {"prompt": prompt, "max_tokens": rng.randrange(1, 120),
                                      "n": rng.choice([1, 1, 1, 2])}


def judge(status, headers, text, body):
    """None when the answer is complete or properly refused, else what is wrong with it."""
    if status == 503:
        return None if headers.get("Retry-After", "").isdigit() and '"error"' in text else \
            f"503 without Retry-After or error object: {text[:200]}"
    if status != 200:
        return f"status {status}: {text[:200]}"
    n = body.get("n", 1)
    if not body["stream"]:
        choices = json.loads(text)["choices"]
        ends = [c["finish_reason"] for c in choices]
    else:
        events = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
        if not events or events[-1] != "[DONE]":
            return f"a stream without its end: ...{text[-200:]}"
        parsed = [json.loads(e) for e in events[:-1]]
        if any("error" in e for e in parsed):
            return f"an error in the stream: {text[-300:]}"
        ends = [c["finish_reason"] for e in parsed for c in e["choices"] if c["finish_reason"]]
    if len(ends) != n or not set(ends) <= {"stop", "length"}:
        return f"{n} choices ended with {ends}"
    return None


class Crowd:
    def __init__(self, daemon):
        self.daemon = daemon
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.counts = collections.Counter()  # guarded by lock, as is wrong
        self.wrong = []

    def count(self, what, wrong=None):
        with self.lock:
            self.counts[what] += 1
            if wrong:
                self.wrong.append(wrong)

    def hang_up(self, rng, connection, path, body):
        """Leaves at a random moment: within the body, at once, or in the middle of the answer."""
        data = json.dumps(body | {"ignore_eos": True}).encode()
        where = rng.choice(["in the body", "at once", "in the answer"])
        connection.putrequest("POST", path)
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(len(data)))
        connection.endheaders()
        connection.send(data[:len(data) // 2] if where == "in the body" else data)
        if where == "in the answer":
            connection.sock.settimeout(rng.random() * 2)
            try:
                connection.sock.recv(rng.randrange(1, 4096))
            except TimeoutError:
                pass
        if rng.random() < 0.5:  # a reset instead of an orderly end
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.count("hung up " + where)

    def ask(self, rng, connection, path, body):
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        r = connection.getresponse()
        text = r.read().decode()
        self.count(f"status {r.status}", judge(r.status, r.headers, text, body))
        return r.status

    def client(self, number):
        rng = random.Random(number)
        connection = None
        while not self.stop.is_set():
            path, body = make_request(rng)
            status = 0
            connection = connection or http.client.HTTPConnection("127.0.0.1", self.daemon.port,
                                                                  timeout=120)
            try:
                if rng.random() < 1 / 3:
                    self.hang_up(rng, connection, path, body)
                    connection.close()
                    connection = None
                else:
                    status = self.ask(rng, connection, path, body)
            except (OSError, http.client.HTTPException, ValueError) as e:
                self.count("broken", f"{path}: {type(e).__name__} {e}")
                connection = None
            self.stop.wait(rng.random() * (1 if status == 503 else 0.05))

    def run(self, seconds):
        threads = [threading.Thread(target=self.client, args=(i,)) for i in range(CLIENTS)]
        samples, start = [], time.monotonic()
        for t in threads:
            t.start()
        while time.monotonic() - start < seconds:
            time.sleep(min(1, seconds / 20))
            samples.append(self.daemon.rss())
        self.stop.set()
        for t in threads:
            t.join()
        return samples


def main():
    binary, model, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    out = pathlib.Path(sys.argv[4])
    tap = Tap(out / "soak.tap")
    daemon = Daemon(binary, model, out / "daemon.log", f"--max_sequences={SEQUENCES}",
                    f"--queue_max={QUEUE}")
    files = daemon.open_files()
    crowd = Crowd(daemon)
    rss = crowd.run(seconds)
    for what, n in sorted(crowd.counts.items()):
        print(f"{n:7} {what}")
    tap.result(not crowd.wrong, "every answer is complete or properly refused",
               "\n".join(crowd.wrong[:5]))
    tap.result(crowd.counts["status 200"] >= CLIENTS / 2, "answers came", crowd.counts)
    idle = daemon.wait_for_metric("gemmad_requests_running", 0, 30) and \
        daemon.wait_for_metric("gemmad_requests_waiting", 0, 30) and \
        daemon.wait_for_metric("gemmad_http_requests_in_flight", 0, 30)
    tap.result(idle, "no sequence and no request is held", daemon.get("/metrics"))
    # The first third fills caches and arenas; the rest must stay level.
    third = sorted(rss[len(rss) // 4:len(rss) // 2])
    early, late = third[len(third) // 2], sorted(rss[-len(rss) // 4:])[len(rss) // 8]
    print(f"rss {early >> 10} KiB early, {late >> 10} KiB late, {max(rss) >> 10} KiB at most")
    tap.result(late < early + (8 << 20), "memory stays level", f"{early} then {late} bytes")
    time.sleep(0.5)
    tap.result(daemon.open_files() <= files + 4, "no file is held",
               f"{files} before, {daemon.open_files()} after")
    before = daemon.cpu_seconds()
    time.sleep(2)
    used = daemon.cpu_seconds() - before
    tap.result(used < 0.05, "idle uses no CPU", f"{used} s in 2 s")
    status, _, text = daemon.post("/v1/completions", {"prompt": "The king", "max_tokens": 8})
    tap.result(status == 200, "it still answers", text)
    status = daemon.stop()
    tap.result(status == 0, "it ends with 0 after SIGTERM", f"status {status}")
    sys.exit(tap.failed > 0)


main()
