#!/usr/bin/env python3
"""Runs gemmad and ik_llama.cpp in turns on the same model files and prints medians and their ratio.

The machine should do nothing else; unset OPENBLAS_CORETYPE. Every round starts each engine anew and measures it once
(after the engine's own warm-up), so that both see the same drift of the machine. ik's programs are llama-bench and
llama-batched-bench, built with -DGGML_NATIVE=ON, run with run-time repacking and without flash attention, which aborts
on Gemma 3 in some of its builds. Both engines decode over the whole head.

--neighbours N measures beside N processes that never sleep, gemmad and ik each; --json FILE adds the figures to FILE,
which chart.py draws.
"""
import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile

SPIN = "import os, time\nparent = os.getppid()\nwhile os.getppid() == parent: pass"


def output(command, log=subprocess.PIPE):
    with tempfile.TemporaryDirectory() as folder:  # ik's programs leave a log where they run
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{(done.stderr or done.stdout)[-1000:]}")
    return done.stdout


def gemmad(a, model):
    """{figure: tokens per second} of one run."""
    batches = ",".join(str(b) for b in [1] + a.batch)
    command = [a.gemmad, "bench", model, "--json", "--repeat", "1", "--prompt", str(a.prompt), "--gen", str(a.gen),
               "--batch", batches, "--depth", str(a.depth), "--threads", str(a.threads)]
    command += ["--isa", a.isa] if a.isa else []
    return {f"prefill {r['tokens']}" if r["test"] == "prefill" else f"decode {r['batch']}": r["median"]
            for r in json.loads(output(command))["results"]}


def ik(a, model):
    threads = ["-t", str(a.threads)]
    command = [os.path.join(a.ik, "llama-bench"), "-m", model, *threads, "-rtr", "1", "-fa", "0", "-r", "1", "-o", "json"]
    command += ["-p", str(a.prompt), "-n", "0" if a.depth else str(a.gen)]
    command += ["-gp", f"{a.depth},{a.gen}"] if a.depth else []
    text = output(command)
    got = {}
    for r in json.loads(text[text.index("["):]):
        got["decode 1" if r["n_gen"] else f"prefill {r['n_prompt']}"] = r["avg_ts"]
    for b in a.batch if not a.depth else []:
        command = [os.path.join(a.ik, "llama-batched-bench"), "-m", model, *threads, "-tb", str(a.threads), "-rtr",
                   "-no-fa", "-c", str(b * (a.gen + 16)), "-npp", "16", "-ntg", str(a.gen), "-npl", str(b)]
        table = output(command, subprocess.STDOUT)  # the table is part of the log
        rows = [line.split("|") for line in table.splitlines() if line.startswith("|")]
        column = [c.strip() for c in rows[0]].index("S_TG t/s")
        got[f"decode {b}"] = float(rows[-1][column])
    return got


@contextlib.contextmanager
def neighbours(n):
    running = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(n)]
    try:
        yield
    finally:
        for p in running:
            p.kill()
            p.wait()


def measure(a, model):
    engines = {"gemmad": gemmad} | ({"ik": ik} if a.ik else {})
    runs = {name: {} for name in engines}
    with neighbours(a.neighbours):
        for _ in range(a.repeat):
            for name, run in engines.items():
                for figure, value in run(a, model).items():
                    runs[name].setdefault(figure, []).append(value)
    return {name: {f: round(statistics.median(v), 1) for f, v in figures.items()} for name, figures in runs.items()}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("models", nargs="+", metavar="MODEL")
    p.add_argument("--gemmad", required=True, help="gemmad's binary")
    p.add_argument("--ik", help="folder of llama-bench and llama-batched-bench")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--isa", help="gemmad's, e.g. avx2")
    p.add_argument("--prompt", type=int, default=512)
    p.add_argument("--gen", type=int, default=64)
    p.add_argument("--depth", type=int, default=0, help="tokens in the cache before decoding starts")
    p.add_argument("--batch", type=lambda s: [int(x) for x in s.split(",") if x], default=[8],
                   help="sequences decoded together besides one (8)")
    p.add_argument("--repeat", type=int, default=5)
    p.add_argument("--neighbours", type=int, default=0)
    p.add_argument("--json", metavar="FILE")
    a = p.parse_args()
    a.models = [os.path.abspath(m) for m in a.models]
    a.gemmad, a.ik = os.path.abspath(a.gemmad), a.ik and os.path.abspath(a.ik)
    stored = {}
    if a.json and os.path.exists(a.json):
        with open(a.json, encoding="utf-8") as f:
            stored = json.load(f)
    for model in a.models:
        name = os.path.basename(model).removesuffix(".gguf")
        name += f", depth {a.depth}" if a.depth else ""
        name += f", {a.neighbours} busy" if a.neighbours else ""
        name += f", {a.isa}" if a.isa else ""
        got = measure(a, model)
        for figure, ours in got["gemmad"].items():
            theirs = got.get("ik", {}).get(figure)
            print(f"{name:36} {figure:13} gemmad {ours:8.1f}" +
                  (f"   ik {theirs:8.1f}   ratio {ours / theirs:5.2f}" if theirs else ""), flush=True)
        stored.setdefault("results", {}).setdefault(name, {}).update(got)
    if a.json:
        with open(a.json, "w", encoding="utf-8") as f:
            json.dump(stored, f, indent=1)
            f.write("\n")


if __name__ == "__main__":
    main()
