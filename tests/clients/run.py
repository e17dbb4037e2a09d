#!/usr/bin/env python3
"""run.py BINARY MODEL TOOLS OUT - the official OpenAI clients against the real daemon.

Installs them under TOOLS when they are not there yet (Python: a virtual environment; Node: npm),
starts four daemons, runs client.py and client.mjs, leaves OUT/openai-*.tap. A client that can't
be installed is a skipped case that says so."""

import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tools"))
from daemon import Daemon, Tap

KEY = "sk-test-0123456789"
EMBEDS = HERE.parent / "golden/families/embeddinggemma/model-bf16.gguf"


def attempt(*command, cwd=None):
    """None, or why it did not work."""
    try:
        r = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
    except (OSError, subprocess.TimeoutExpired) as e:
        return str(e)
    lines = r.stdout.strip().splitlines() or ["no output"]
    return None if r.returncode == 0 else f"{command[0]} {command[1]}: {lines[-1]}"


def install_python(tools):
    venv = tools / "venv"
    if (venv / "openai-is-here").exists():
        return None
    why = attempt(sys.executable, "-m", "venv", "--clear", str(venv)) or \
        attempt(str(venv / "bin/pip"), "install", "-q", "openai")
    if not why:
        (venv / "openai-is-here").touch()
    return why


def install_node(tools):
    node = tools / "node"
    if (node / "node_modules/openai/package.json").exists():
        return None
    node.mkdir(parents=True, exist_ok=True)
    (node / "package.json").write_text('{"private": true}\n')
    return attempt("npm", "install", "--no-audit", "--no-fund", "openai", cwd=node)


def run_client(tap, out, name, why_not, command, cwd, env):
    if why_not:
        tap.skip(f"openai for {name}", f"cannot be installed: {why_not}")
        return
    path = out / f"openai-{name}.tap"
    r = subprocess.run([*command, str(path)], cwd=cwd, env=env, stdin=subprocess.DEVNULL)
    # Its own cases are counted from its file; this one is for a client that died on the way.
    tap.result(path.exists() and r.returncode in (0, 1), f"the {name} client ran to its end",
               f"exit status {r.returncode}")


def main():
    binary, model, tools, out = sys.argv[1:2] + sys.argv[2:3] + [
        pathlib.Path(p).resolve() for p in sys.argv[3:5]]
    tools.mkdir(parents=True, exist_ok=True)
    tap = Tap(out / "daemons.tap")
    keys = out / "keys"
    keys.write_text(f"# for tests\ntester:{KEY}\n")
    daemons = []
    try:
        for name, settings in {"plain": [], "keyed": [f"--api_key_file={keys}"],
                               "tight": ["--max_sequences=1", "--queue_max=1"]}.items():
            daemons.append(Daemon(binary, model, out / f"daemon-{name}.log", *settings))
        daemons.append(Daemon(binary, EMBEDS, out / "daemon-embed.log"))
        urls = dict(zip(("GEMMAD_URL", "GEMMAD_KEYED_URL", "GEMMAD_TIGHT_URL",
                         "GEMMAD_EMBED_URL"),
                        (d.url for d in daemons)))
        env = os.environ | urls | {"GEMMAD_KEY": KEY}
        run_client(tap, out, "python", install_python(tools),
                   [str(tools / "venv/bin/python"), str(HERE / "client.py")], None, env)
        run_client(tap, out, "node", install_node(tools),
                   ["node", str(HERE / "client.mjs")], tools / "node", env)
    finally:
        for d in daemons:
            status = d.stop()
            tap.result(status == 0, "the daemon ends with 0 after SIGTERM", f"status {status}")


main()
