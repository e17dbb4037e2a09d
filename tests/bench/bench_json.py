#!/usr/bin/env python3
"""bench_json.py GEMMAD MODEL - gemmad bench --json prints one object with all that a script compares. Prints TAP."""

import json
import os
import subprocess
import sys
import tempfile


def check(got, path):
    assert got["path"] == path, "path"
    assert got["isa"] == "c" and got["threads"] == 2, "isa and threads"
    assert got["profile"] == "reference" and got["kv_type"] == "f32", "profile and type of the cache"
    assert got["model"] and got["name"] and got["parameters"] > 0, "the model's names and size"
    assert sum(got["types"].values()) < os.path.getsize(path) < 2 * sum(got["types"].values()), "bytes of the tensors"
    assert got["weight_bytes"] > 0 and got["load_ms"] > 0, "load"
    assert got["peak_resident_bytes"] > got["weight_bytes"], "peak of resident memory"
    assert got["repeat"] == 3 and got["head_read"] == 1, "how it was measured"
    assert got["temperature"] == 1 and got["top_k"] == 0 and got["top_p"] == 1, "how tokens were drawn"
    runs = [(r["test"], r["tokens"], r["depth"], r["batch"]) for r in got["results"]]
    assert runs == [("prefill", 8, 0, 1), ("decode", 2, 4, 1), ("decode", 2, 4, 3)], f"tests: {runs}"
    for r in got["results"]:
        assert 0 < r["min"] <= r["median"] <= r["max"], f"order of {r}"


def main():
    gemmad, model = sys.argv[1:]
    print("1..1")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'a "quoted"\\ name.gguf')
        os.symlink(os.path.abspath(model), path)
        text = subprocess.run([gemmad, "bench", path, "--json", "--prompt", "8", "--gen", "2", "--depth", "4",
                               "--batch", "1,3", "--repeat", "3", "--threads", "2", "--isa", "c",
                               "--profile", "reference"],
                              check=True, stdout=subprocess.PIPE, timeout=110).stdout
        try:
            check(json.loads(text), path)
        except (AssertionError, KeyError, ValueError) as e:
            print(f"not ok 1 - bench --json: {e!r}")
            return 1
    print("ok 1 - bench --json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
