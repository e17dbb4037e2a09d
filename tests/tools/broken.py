#!/usr/bin/env python3
"""broken.py BINARY GOLDEN [SHARE] - deliberately broken copies of every family's files.

Takes the GGUF and safetensors files of the golden families and breaks a copy of each in one place:
a tensor missing, a shape off by one, a key absent, a key absurd. `gemmad graph COPY` must end with
status 2 and one sentence that names what was broken, never with a crash. SHARE is the part of all
copies to try (1: all 10,000; the default gives about 250). A drafter cannot stand alone: `gemmad
verify` gets its copies beside the target. Last, a file shrinks while it is served. Prints TAP."""

import json
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import urllib.error

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from daemon import Daemon

FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY, U32, F32 = 8, 9, 4, 6


class Gguf:
    """Just enough of the format to change a key or a tensor's description."""

    def __init__(self, path):
        self.data, self.at = path.read_bytes(), 8
        n_tensors, n_keys = self.take("Q"), self.take("Q")
        self.keys = [self.key() for _ in range(n_keys)]
        self.tensors = [self.tensor() for _ in range(n_tensors)]
        self.at += -self.at % 32
        self.body = self.data[self.at:]

    def take(self, code):
        n = struct.calcsize("<" + code)
        value = struct.unpack_from("<" + code, self.data, self.at)[0]
        self.at += n
        return value

    def string(self):
        n = self.take("Q")
        self.at += n
        return self.data[self.at - n:self.at].decode()

    def key(self):
        name, kind, start = self.string(), self.take("I"), self.at
        self.skip(kind)
        return [name, kind, self.data[start:self.at]]

    def skip(self, kind):
        if kind == STRING:
            self.string()
        elif kind == ARRAY:
            element, n = self.take("I"), self.take("Q")
            for _ in range(n):
                self.skip(element)
        else:
            self.take(FORMATS[kind])

    def tensor(self):
        name, n = self.string(), self.take("I")
        return [name, [self.take("q") for _ in range(n)], self.take("I"), self.take("Q")]

    def add(self, name, ne, kind, data):
        self.body += bytes(-len(self.body) % 32)
        self.tensors.append([name, ne, kind, len(self.body)])
        self.body += data

    def write(self, path):
        out = bytearray(self.data[:8] + struct.pack("<QQ", len(self.tensors), len(self.keys)))

        def put_string(s):
            out.extend(struct.pack("<Q", len(s.encode())) + s.encode())

        for name, kind, value in self.keys:
            put_string(name)
            out.extend(struct.pack("<I", kind) + value)
        for name, ne, kind, offset in self.tensors:
            put_string(name)
            out.extend(struct.pack(f"<I{len(ne)}qIQ", len(ne), *ne, kind, offset))
        out.extend(bytes(-len(out) % 32))
        path.write_bytes(bytes(out) + self.body)


class Safetensors:
    def __init__(self, path):
        data = path.read_bytes()
        n = struct.unpack_from("<Q", data)[0]
        self.header, self.body = json.loads(data[8:8 + n]), data[8 + n:]
        self.names = [name for name in self.header if name != "__metadata__"]

    def drop(self, name):
        begin, end = self.header.pop(name)["data_offsets"]
        self.body = self.body[:begin] + self.body[end:]
        for entry in self.header.values():
            if "data_offsets" in entry and entry["data_offsets"][0] >= end:
                entry["data_offsets"] = [at - (end - begin) for at in entry["data_offsets"]]

    def write(self, path):
        header = json.dumps(self.header).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header + self.body)


# Optional: without them the file is another, whole model.
def may_be_missing(family, name):
    unused = ("attn_k.weight", "attn_v.weight", "attn_k_norm.weight", "k_proj.weight",
              "v_proj.weight", "k_norm.weight")
    layer = next((int(part) for part in name.split(".") if part.isdigit()), -1)
    return (family in ("gemma3n", "gemma4-e2b") and layer >= 3 and name.endswith(unused)) or \
        (family == "gemma4-e2b" and name == "blk.2.attn_v.weight")


def resizable(name):
    """Tables may have any number of rows."""
    return "token_embd" in name or "embed_tokens" in name


REQUIRED = ["general.architecture", "block_count", "context_length", "embedding_length",
            "feed_forward_length", "attention.head_count", "attention.layer_norm_rms_epsilon",
            "tokenizer.ggml.model", "tokenizer.ggml.tokens"]
REQUIRED_OF = {"gemma3n": ["attention.sliding_window", "embedding_length_per_layer_input"],
               "gemma4-dense": ["attention.sliding_window", "attention.sliding_window_pattern"],
               "gemma4-moe": ["expert_used_count", "expert_feed_forward_length"],
               "gemma4-assistant": ["attention.sliding_window_pattern", "embedding_length_out"],
               "embeddinggemma": ["attention.sliding_window"]}
NAN = struct.pack("<f", float("nan"))


def absurd_values(name, kind, value):
    """(type, bytes) that no model can have."""
    last = name.split(".", 1)[1]
    wrong_type = (STRING, struct.pack("<Q", 1) + b"x")
    if name in ("general.architecture", "tokenizer.ggml.model"):
        return [wrong_type, (U32, struct.pack("<I", 1))]
    if name.startswith(("general.", "tokenizer.")) or last in ("nextn_predict_layers",):
        return []
    if kind == U32 and last in ("altup.active_idx", "pooling_type"):
        return [(U32, struct.pack("<I", 7)), wrong_type]
    if kind == U32 and last.startswith(("rope.dimension", "attention.value")):
        return [(U32, struct.pack("<I", 6)), wrong_type]
    if kind == U32:
        return [(U32, struct.pack("<I", 0xfffffff0)), (F32, NAN), wrong_type]
    if kind == F32:
        return [(F32, NAN), (F32, struct.pack("<f", -1.0)), wrong_type]
    if kind == ARRAY:
        element, n = struct.unpack_from("<IQ", value)
        size = struct.calcsize(FORMATS[element])
        return [(ARRAY, struct.pack("<IQ", element, n - 1) + value[12:-size]), wrong_type]
    return []


def gguf_cases(family, path):
    """(what, names that the sentence may hold, function that writes the copy)"""
    whole = Gguf(path)
    arch = next(value[8:].decode() for name, _, value in whole.keys if name == "general.architecture")
    required = [name if name in ("general.architecture",) or name.startswith("tokenizer.")
                else f"{arch}.{name}" for name in REQUIRED + REQUIRED_OF.get(family, [])]
    tensors = [t[0] for t in whole.tensors]

    def edit(change):
        def write(folder):
            copy = Gguf(path)
            change(copy)
            copy.write(folder / path.name)
            return folder / path.name
        return write

    for i, (name, ne, _, _) in enumerate(whole.tensors):
        if may_be_missing(family, name):
            continue
        yield f"without {name}", [name], edit(lambda g, i=i: g.tensors.pop(i))
        for axis in range(len(ne)):
            for step in (1, -1):
                if ne[axis] + step < 1 or (axis == len(ne) - 1 and resizable(name)):
                    continue

                def change(g, i=i, axis=axis, step=step):
                    g.tensors[i][1][axis] += step
                yield f"{name}: dimension {axis} {step:+d}", [name], edit(change)
    for i, (name, kind, value) in enumerate(whole.keys):
        if family == "gemma4-assistant" and name.startswith("tokenizer."):
            continue  # a drafter speaks its target's tokens
        if name in required:
            yield f"without {name}", [name], edit(lambda g, i=i: g.keys.pop(i))
        for to in absurd_values(name, kind, value):
            def change(g, i=i, to=to):
                g.keys[i][1:] = to
            yield f"{name} = {to[1][:12]!r}", [name, "architecture"] + tensors, edit(change)


ABSURD = {int: [-1, 0, 1e9, 2.5, "x", [1]], float: [-1, "x", []], bool: [], str: ["x", 7],
          list: [[], [1], "x"], dict: [{"full_attention": 1}, "x", 3]}
# No part of the numbers, or a part that any value fits.
FREE = {"bos_token_id", "eos_token_id", "pad_token_id", "initializer_range", "attention_dropout",
        "use_cache", "dtype", "torch_dtype", "architectures", "transformers_version", "laurel_rank",
        "altup_coef_clip", "use_ordered_embeddings", "num_centroids", "vision_config",
        "centroid_intermediate_top_k", "mm_tokens_per_image", "image_token_index", "boi_token_index",
        "eoi_token_index", "rope_local_base_freq", "rms_norm_eps", "sliding_window",
        "max_position_embeddings", "rope_theta", "query_pre_attn_scalar", "audio_config",
        "_sliding_window_pattern"}


def config_cases(family, folder):
    config = json.loads((folder / "config.json").read_text())
    where = ["text_config"] if "text_config" in config else []
    text = config["text_config"] if where else config

    def edit(key, to):
        def write(target):
            copy = json.loads(json.dumps(config))
            (copy["text_config"] if where else copy)[key] = to
            copy_folder(folder, target)
            (target / "config.json").unlink()
            (target / "config.json").write_text(json.dumps(copy))
            return target
        return write

    for key, value in text.items():
        if key in FREE or (family == "gemma4-assistant" and key == "vocab_size_per_layer_input"):
            continue
        for to in ABSURD.get(type(value), []):
            # 0 switches these features off, and other windows and patterns are other models.
            if to == 0 and key in ("final_logit_softcapping", "attn_logit_softcapping"):
                continue
            if to != value and to is not False:
                yield f"config.json: {key} = {json.dumps(to)}", None, edit(key, to)


def copy_folder(folder, target):
    for part in folder.iterdir():
        if not part.name.startswith("golden") and part.suffix != ".gguf":
            (target / part.name).symlink_to(part)


def safetensors_cases(family, path):
    whole = Safetensors(path)

    def edit(change):
        def write(target):
            copy = Safetensors(path)
            change(copy)
            copy_folder(path.parent, target)
            (target / path.name).unlink()
            copy.write(target / path.name)
            return target
        return write

    for name in whole.names:
        if not may_be_missing(family, name):
            # The sentence may leave the prefix out.
            short = name.split("language_model.")[-1].split("model.", 1)[-1]
            parts = [short, "altup_proj", "altup_unembd"] if "altup_" in short else [short]
            yield f"without {name}", parts, edit(lambda s, name=name: s.drop(name))
        for axis in range(len(whole.header[name]["shape"])):
            def change(s, name=name, axis=axis):
                s.header[name]["shape"][axis] += 1
            yield f"{name}: dimension {axis} +1", [name], edit(change)


def all_cases(golden):
    for folder in sorted((golden / "families").iterdir()):
        for path in sorted(folder.glob("*.gguf")):
            yield folder.name, [(path.name, *case) for case in gguf_cases(folder.name, path)]
        if (folder / "model.safetensors").exists():
            yield folder.name, [("folder", *case) for case in
                                safetensors_cases(folder.name, folder / "model.safetensors")]
            yield folder.name, [("folder", *case) for case in config_cases(folder.name, folder)]


def run_on(binary, family, golden, model, folder):
    """(status, what was said) of the command that reads this model."""
    if family == "gemma4-assistant":
        about = json.loads((golden / "families" / family / "golden.json").read_text())
        about["weights"] = ["model.safetensors" if model.is_dir() else model.name]
        about["target"] = os.path.relpath(golden / "families" / "gemma4-e2b", folder)
        (folder / "golden.json").write_text(json.dumps(about))
        (folder / "golden.f32").symlink_to(golden / "families" / family / "golden.f32")
        r = subprocess.run([binary, "verify", "--threads=1", str(folder)], stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
        said = r.stdout.decode("utf-8", "replace").strip().splitlines()
        # "FAILED folder file: sentence", then how many checks hold
        return (2 if r.returncode == 1 and len(said) == 2 else r.returncode), "\n".join(said[:-1])
    r = subprocess.run([binary, "graph", "--threads=1", str(model)], stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=120)
    return r.returncode, r.stderr.decode("utf-8", "replace").strip()


def verdict(binary, golden, family, write, names):
    """None, or what is wrong with the answer."""
    with tempfile.TemporaryDirectory(prefix="gemmad-broken-") as name:
        folder = pathlib.Path(name).resolve()
        status, said = run_on(binary, family, golden, write(folder), folder)
    if status != 2:
        return f"status {status}: {said[-600:]}"
    if said.count("\n") or not said.startswith(("gemmad graph: ", "FAILED ")):
        return f"not one sentence: {said[:600]}"
    if names and not any(name in said for name in names):
        return f"does not name it: {said}"
    return None


def whole_copies(binary, golden):
    """(what, None or what is wrong): with tensors that are no part of the text, or not needed."""
    f32 = (0, bytes(4 * 64 * 512))
    for family, file, name, works in (
            ("gemma3", "model-bf16.gguf", "v.patch_embd.weight", True),
            ("gemma4-dense", "model-bf16.gguf", "mm.input_projection.weight", True),
            ("gemma3n", "model-bf16.gguf", "a.blk.0.attn_q.weight", True),
            ("gemma1", "model-bf16.gguf", "output.weight", True),
            ("gemma2", "model-f16.gguf", "output.weight", True),
            ("gemma3", "model-bf16.gguf", "blk.0.attn_q.scale", False),
            ("gemma3", "model-bf16.gguf", "vocoder.weight", False)):
        copy = Gguf(golden / "families" / family / file)
        copy.add(name, [64, 512], *f32)
        with tempfile.TemporaryDirectory(prefix="gemmad-broken-") as folder:
            copy.write(pathlib.Path(folder) / file)
            status, said = run_on(binary, family, golden, pathlib.Path(folder) / file, folder)
        good = status == 0 if works else status == 2 and name in said
        yield f"{family} with {name} {'runs' if works else 'is refused'}", \
            None if good else f"status {status}: {said}"


def shrink_while_serving(binary, golden):
    """None, or what is wrong: the table of per-layer inputs is read from the file at each token."""
    with tempfile.TemporaryDirectory(prefix="gemmad-broken-") as folder:
        model, log = pathlib.Path(folder) / "model.gguf", pathlib.Path(folder) / "log"
        model.write_bytes((golden / "families/gemma4-e2b/model-bf16.gguf").read_bytes())
        daemon = Daemon(binary, model, log, "--threads=1", "--ctx_tokens=256")
        os.truncate(model, 4096)
        try:
            daemon.post("/v1/completions", {"prompt": "hello", "max_tokens": 4}, timeout=30)
        except (OSError, urllib.error.URLError, ValueError):
            pass  # nobody is left to answer
        except Exception as e:  # http.client's own
            if "Disconnected" not in type(e).__name__ and "Incomplete" not in type(e).__name__:
                raise
        status = daemon.proc.wait(timeout=30)
        said = log.read_text(errors="replace")
    if status == 2 and "the model file became shorter while it was in use" in said:
        return None
    return f"status {status}: {said[-600:]}"


def main():
    binary, golden = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
    share = float(sys.argv[3]) if len(sys.argv) > 3 else 0.024
    chance, n, failed = random.Random(4), 0, 0

    def report(what, why):
        nonlocal n, failed
        n += 1
        failed += why is not None
        print(f"{'not ok' if why else 'ok'} {n} - {what}", flush=True)
        if why:
            print("# " + why.replace("\n", "\n# "), flush=True)

    for family, cases in all_cases(golden):
        some = chance.sample(cases, min(len(cases), int(len(cases) * share) + 1))
        for place, what, names, write in some:
            report(f"{family} {place} {what}", verdict(binary, golden, family, write, names))
    for what, why in whole_copies(binary, golden):
        report(what, why)
    report("a file that shrinks while it is served", shrink_while_serving(binary, golden))
    print(f"1..{n}")
    return 1 if failed or n < 200 else 0


if __name__ == "__main__":
    sys.exit(main())
