#!/usr/bin/env python3
"""Runs gemmad, ik_llama.cpp and mainline llama.cpp in turns on the same model files; prints medians and ratios.

The machine should do nothing else; unset OPENBLAS_CORETYPE. Every round starts each engine anew and measures it once
(after the engine's own warm-up), so that all see the same drift of the machine. The peers' programs are llama-bench and
llama-batched-bench, built with -DGGML_NATIVE=ON. ik runs with run-time repacking and without flash attention, which
aborts on Gemma 3 in some of its builds; mainline runs with its own defaults. All decode over the whole head.

--openvino FOLDER adds openvino-genai on the one MODEL's twin in that engine's format, through peer_openvino.py; the
Python that runs this script must have the package then. --neighbours N measures beside N processes that never sleep,
each engine alone; --json FILE adds the figures to FILE, which chart.py draws.
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


def llama(a, model, folder, flags, batched_flags, at_depth):
    """The same from the programs in `folder`; at_depth are the arguments that decode behind a.depth tokens."""
    threads = ["-t", str(a.threads)]
    bench = [os.path.join(folder, "llama-bench"), "-m", model, *threads, *flags, "-r", "1", "-o", "json"]
    prompt, gen = ["-p", str(a.prompt)], ["-n", str(a.gen)]
    got = {}
    for tests in [[*prompt, "-n", "0"], ["-p", "0", *at_depth]] if a.depth else [[*prompt, *gen]]:
        text = output(bench + tests)
        for r in json.loads(text[text.index("["):]):
            got["decode 1" if r["n_gen"] else f"prefill {r['n_prompt']}"] = r["avg_ts"]
    for b in a.batch if not a.depth else []:
        command = [os.path.join(folder, "llama-batched-bench"), "-m", model, *threads, "-tb", str(a.threads),
                   *batched_flags, "-c", str(b * (a.gen + 16)), "-npp", "16", "-ntg", str(a.gen), "-npl", str(b)]
        table = output(command, subprocess.STDOUT)  # the table is part of the log
        rows = [line.split("|") for line in table.splitlines() if line.startswith("|")]
        column = [c.strip() for c in rows[0]].index("S_TG t/s")
        got[f"decode {b}"] = float(rows[-1][column])
    return got


def ik(a, model):
    return llama(a, model, a.ik, ["-rtr", "1", "-fa", "0"], ["-rtr", "-no-fa"], ["-n", "0", "-gp", f"{a.depth},{a.gen}"])


def mainline(a, model):
    return llama(a, model, a.mainline, [], [], ["-n", str(a.gen), "-d", str(a.depth)])


def openvino(a, model):
    del model  # the folder holds its numbers
    batches = ",".join(str(b) for b in [1] + a.batch)
    command = [sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "peer_openvino.py"), a.openvino,
               "--prompt", str(a.prompt), "--gen", str(a.gen), "--batch", batches, "--threads", str(a.threads)]
    return json.loads(output(command).splitlines()[-1])


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
    peers = {"ik": ik, "mainline": mainline, "openvino": openvino}
    engines = {"gemmad": gemmad} | {name: run for name, run in peers.items() if getattr(a, name)}
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
    p.add_argument("--ik", help="folder of ik_llama.cpp's llama-bench and llama-batched-bench")
    p.add_argument("--mainline", help="folder of mainline llama.cpp's")
    p.add_argument("--openvino", metavar="FOLDER", help="of an exported model")
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
    a.gemmad = os.path.abspath(a.gemmad)
    for peer in ("ik", "mainline", "openvino"):
        setattr(a, peer, getattr(a, peer) and os.path.abspath(getattr(a, peer)))
    if a.openvino and (a.depth or len(a.models) > 1):
        p.error("--openvino goes with one MODEL and no --depth")
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
            line = f"{name:36} {figure:13} gemmad {ours:8.1f}"
            for peer in [engine for engine in got if engine != "gemmad" and figure in got[engine]]:
                line += f"   {peer} {got[peer][figure]:8.1f}   ratio {ours / got[peer][figure]:5.2f}"
            print(line, flush=True)
        stored.setdefault("results", {}).setdefault(name, {}).update(got)
    if a.json:
        with open(a.json, "w", encoding="utf-8") as f:
            json.dump(stored, f, indent=1)
            f.write("\n")


if __name__ == "__main__":
    main()
