"""daemon.py - starts the real daemon for tests in Python, talks to it, ends it."""

import http.client
import json
import os
import re
import select
import signal
import subprocess
import time
import urllib.request


class Daemon:
    def __init__(self, binary, model, log, *settings):
        self.log = open(log, "wb+")
        self.proc = subprocess.Popen(
            [binary, "serve", f"--model={model}", "--port=0", *settings],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log)
        self.url = self._wait_for_url()
        self._wait_until_ready()

    def _wait_for_url(self, limit=30):
        """The first line of output that names an address."""
        text, end = b"", time.monotonic() + limit
        while time.monotonic() < end and self.proc.poll() is None:
            if select.select([self.proc.stdout], [], [], 0.2)[0]:
                text += os.read(self.proc.stdout.fileno(), 65536)
            found = re.search(rb"http://[^\s/]+:(\d+)", text)
            if found:
                self.port = int(found.group(1))
                return f"http://127.0.0.1:{self.port}"
        self.kill()
        self.log.seek(0)
        raise RuntimeError(f"the daemon did not start: {text!r} {self.log.read()!r}")

    def _wait_until_ready(self, limit=60):
        end = time.monotonic() + limit
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(self.url + "/health", timeout=5).read()
                return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError("the daemon did not become ready")

    def get(self, path, key=None):
        request = urllib.request.Request(self.url + path)
        if key:
            request.add_header("Authorization", f"Bearer {key}")
        return urllib.request.urlopen(request, timeout=30).read().decode()

    def metrics(self):
        """name{labels} -> value"""
        pairs = (line.rsplit(" ", 1) for line in self.get("/metrics").splitlines()
                 if line and line[0] != "#")
        return {name: float(value) for name, value in pairs}

    def wait_for_metric(self, name, value, limit=10):
        """True as soon as the metric has the value."""
        end = time.monotonic() + limit
        while self.metrics()[name] != value:
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def post(self, path, body, timeout=120):
        """-> (status, headers, body) of a POST with JSON"""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            c.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            r = c.getresponse()
            return r.status, dict(r.getheaders()), r.read()
        finally:
            c.close()

    def rss(self):
        """bytes of memory that are resident now"""
        with open(f"/proc/{self.proc.pid}/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    def open_files(self):
        return len(os.listdir(f"/proc/{self.proc.pid}/fd"))

    def cpu_seconds(self):
        with open(f"/proc/{self.proc.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self, limit=60):
        """SIGTERM; returns the exit status, or None when it had to be killed."""
        self.proc.send_signal(signal.SIGTERM)
        try:
            return self.proc.wait(limit)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def kill(self):
        self.proc.kill()
        self.proc.wait()


class Tap:
    """Collects results in the form that tests/tools/count.py reads."""

    def __init__(self, path):
        self.out = open(path, "w", buffering=1)
        self.failed = 0

    def result(self, ok, name, detail=""):
        for line in str(detail).splitlines()[-8:]:
            self.out.write(f"# {line}\n")
        self.out.write(f"{'ok' if ok else 'not ok'} - {name}\n")
        self.failed += not ok

    def skip(self, name, reason):
        self.out.write(f"ok - {name} # SKIP {reason}\n")
