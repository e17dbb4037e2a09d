#!/usr/bin/env python3
"""count.py RESULT_DIR STAGE - counts the test cases that a stage of ./dev test left behind.

Reads every meson testlog*.json and every *.tap of the folder. Prints one line
`passed failed skipped`, then a line for each case that was skipped or failed. A program that died,
timed out or planned more cases than it ran counts as one failure more."""

import json
import pathlib
import re
import sys

CASE = re.compile(r"^(not )?ok\b\s*(\d*)\s*-?\s*(.*)$")
PLAN = re.compile(r"^1\.\.(\d+)(?:\s*#\s*skip\S*\s*(.*))?", re.I)
SKIP = re.compile(r"#\s*skip\S*:?\s*(.*)$", re.I)


def read_tap(text, program):
    """-> (passed, failed, skipped, notes) of one program's output."""
    passed = failed = skipped = seen = 0
    planned = None
    notes, spoken = [], []
    for line in text.splitlines():
        plan = PLAN.match(line)
        if plan:
            planned = (planned or 0) + int(plan.group(1))
            if plan.group(2) is not None:
                skipped += 1
                notes.append(f"SKIP {program}: {plan.group(2)}")
            continue
        case = CASE.match(line)
        if not case:
            if line.strip():
                spoken.append(line.strip().lstrip("# "))
            continue
        seen += 1
        bad, name = case.group(1), case.group(3)
        skip = SKIP.search(name) or (SKIP.search(line) if "#" in line else None)
        if skip:
            # cmocka puts the case's name where others put the reason, which it printed before.
            skipped += 1
            before = name[: name.find("#")].strip() if "#" in name else ""
            reason = skip.group(1) if before else (spoken[-1] if spoken else "no reason given")
            notes.append(f"SKIP {program}: {before or skip.group(1)}: {reason}")
        elif bad:
            failed += 1
            notes.append(f"FAIL {program}: {name}")
            notes += [f"     {s}" for s in spoken[-6:]]
        else:
            passed += 1
        spoken = []
    if planned is not None and seen < planned:
        failed += 1
        notes.append(f"FAIL {program}: ended after {seen} of {planned} cases")
        notes += [f"     {s}" for s in spoken[-12:]]
    return passed, failed, skipped, notes


def read_meson(line):
    test = json.loads(line)
    program, result = test["name"], test["result"]
    text = test.get("stdout", "")
    tail = [f"     {s}" for s in (text + "\n" + test.get("stderr", "")).strip().splitlines()[-12:]]
    if re.search(r"^(not )?ok\b|^1\.\.\d", text, re.M):
        passed, failed, skipped, notes = read_tap(text, program)
        # meson takes the "not ok # SKIP" of cmocka for a failure; the program knows better.
        only_skips = result == "FAIL" and test.get("returncode") == 0 and skipped > 0
        if result not in ("OK", "EXPECTEDFAIL", "SKIP") and failed == 0 and not only_skips:
            failed = 1
            notes.append(f"FAIL {program}: {result}, exit status {test.get('returncode')}")
            notes += tail
        return passed, failed, skipped, notes
    if result in ("OK", "EXPECTEDFAIL"):
        return 1, 0, 0, []
    if result == "SKIP":
        return 0, 0, 1, [f"SKIP {program}: " + (tail[-1].strip() if tail else "no reason given")]
    return 0, 1, 0, [f"FAIL {program}: {result}, exit status {test.get('returncode')}"] + tail


def main():
    folder, stage = pathlib.Path(sys.argv[1]), sys.argv[2]
    parts = []
    for path in sorted(folder.glob("testlog*.json")):
        parts += [read_meson(line) for line in path.read_text().splitlines() if line.strip()]
    for path in sorted(folder.glob("*.tap")):
        parts.append(read_tap(path.read_text(errors="replace"), path.stem))
    passed, failed, skipped = (sum(p[i] for p in parts) for i in range(3))
    notes = [n for p in parts for n in p[3]]
    if passed + failed + skipped == 0:
        failed = 1
        notes.append(f"FAIL {stage}: ran no test")
    print(passed, failed, skipped)
    print(*notes, sep="\n")


main()
