#!/usr/bin/env python3
"""make_models.py SOURCE.gguf OUT_DIR [NAME...]: models to measure speed on, from a real Gemma 3 270M file.

Needs the PyPI packages gguf and numpy. NAME is one of 270m-q8_0, 270m-q4_0, 270m-bf16 (the source's own numbers in
another type) and 1b-q8_0, 1b-q4_0 (random numbers of the shapes of Gemma 3 1B; head and embedding in Q8_0).
The vocabulary and all keys are the source's, so that text can be served.
"""
import os
import sys

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import GGUFReader, GGUFValueType, GGUFWriter, dequantize, quantize

SHAPES_1B = {"block_count": 26, "embedding_length": 1152, "feed_forward_length": 6912}
TYPES = {"q8_0": T.Q8_0, "q4_0": T.Q4_0, "bf16": T.BF16}


def copy_keys(reader, writer, changes):
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        kind = field.types[0]
        sub = field.types[-1] if kind == GGUFValueType.ARRAY else None
        value = changes.get(name.split(".", 1)[-1], field.contents())
        writer.add_key_value(name, value, kind, sub_type=sub)


def add(writer, name, values, kind):
    if values.ndim == 1:
        writer.add_tensor(name, values.astype(np.float32))
    else:
        writer.add_tensor(name, quantize(values.astype(np.float32), kind), raw_dtype=kind)


def convert(reader, path, kind):
    writer = GGUFWriter(path, "gemma3")
    copy_keys(reader, writer, {})
    for t in reader.tensors:
        add(writer, t.name, dequantize(t.data, t.tensor_type), kind)
    finish(writer)


def random_1b(reader, path, kind):
    rng = np.random.default_rng(1)
    d, ff, heads, head_dim = 1152, 6912, 4, 256
    writer = GGUFWriter(path, "gemma3")
    copy_keys(reader, writer, SHAPES_1B)

    def matrix(name, rows, k, t=kind):
        block = rng.standard_normal((64, k)).astype(np.float32) * (0.5 / k**0.5)
        add(writer, name, np.tile(block, (-(-rows // 64), 1))[:rows], t)

    matrix("token_embd.weight", 262144, d, T.Q8_0)
    add(writer, "output_norm.weight", np.ones(d), kind)
    for i in range(SHAPES_1B["block_count"]):
        b = f"blk.{i}."
        for norm in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
            add(writer, b + norm + ".weight", np.ones(d), kind)
        for norm in ("attn_q_norm", "attn_k_norm"):
            add(writer, b + norm + ".weight", np.ones(head_dim), kind)
        matrix(b + "attn_q.weight", heads * head_dim, d)
        matrix(b + "attn_k.weight", head_dim, d)
        matrix(b + "attn_v.weight", head_dim, d)
        matrix(b + "attn_output.weight", d, heads * head_dim)
        matrix(b + "ffn_gate.weight", ff, d)
        matrix(b + "ffn_up.weight", ff, d)
        matrix(b + "ffn_down.weight", d, ff)
    finish(writer)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    reader = GGUFReader(sys.argv[1])
    names = sys.argv[3:] or ["270m-q8_0", "270m-q4_0", "270m-bf16", "1b-q8_0", "1b-q4_0"]
    for name in names:
        size, kind = name.split("-")
        path = os.path.join(sys.argv[2], f"gemma-3-{name}.gguf")
        (random_1b if size == "1b" else convert)(reader, path, TYPES[kind])
        print(path)


if __name__ == "__main__":
    main()
