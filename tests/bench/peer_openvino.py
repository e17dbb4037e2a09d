#!/usr/bin/env python3
"""peer_openvino.py FOLDER: measures openvino-genai on a model exported for it; prints {figure: tokens per second}.

FOLDER is what `optimum-cli export openvino` wrote; the Python needs openvino-genai and numpy. Prompts are token ids, so
no text is split or joined. Prefill is the time to the first token, as the engine itself reports it; decoding is what
answers of --gen further tokens take beyond answers of one, over all sequences, after prompts of 16 tokens. Greedy, two
warm-ups first. The figures' names are those of peers.py.
"""
import argparse
import json
import time

import numpy
import openvino
import openvino_genai


RANDOM = numpy.random.default_rng(1)


def generate(pipe, batch, prompt, tokens):
    """Seconds in all and to the first token. Every prompt is new, as the engine keeps what it has seen."""
    ids = RANDOM.integers(1000, 200000, (batch, prompt), dtype=numpy.int64)
    inputs = openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(numpy.ones_like(ids)))
    start = time.perf_counter()
    result = pipe.generate(inputs, max_new_tokens=tokens, ignore_eos=True, do_sample=False)
    seconds = time.perf_counter() - start
    if any(len(t) != tokens for t in result.tokens) or len(result.tokens) != batch:
        raise SystemExit("a sequence ended early")
    return seconds, result.perf_metrics.get_ttft().mean / 1000


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--prompt", type=int, default=512)
    p.add_argument("--gen", type=int, default=64)
    p.add_argument("--batch", type=lambda s: [int(x) for x in s.split(",") if x], default=[1, 8])
    a = p.parse_args()
    pipe = openvino_genai.LLMPipeline(a.folder, "CPU", INFERENCE_NUM_THREADS=a.threads)
    for _ in range(2):
        generate(pipe, 1, a.prompt, 4)
    got = {f"prefill {a.prompt}": a.prompt / generate(pipe, 1, a.prompt, 2)[1]}
    for b in a.batch:
        generate(pipe, b, 16, 2)
        got[f"decode {b}"] = b * a.gen / (generate(pipe, b, 16, a.gen + 1)[0] - generate(pipe, b, 16, 1)[0])
    print(json.dumps(got))


if __name__ == "__main__":
    main()
