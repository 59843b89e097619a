#!/usr/bin/env python3
"""compare.py REPORT.json BASELINE.txt [--part]

Prints, for each test of a ginkgo JSON report, how it did and how it did with kube-proxy; then each worse one's failure.
With --part, tests of the baseline that were not run are left out. Exit status 1 when a test is worse."""
import json
import re
import sys


def tests(report):
    """Name -> (state, seconds, failure message), of the tests that were selected."""
    found = {}
    for suite in json.load(open(report)):
        for spec in suite.get("SpecReports") or []:
            if spec.get("LeafNodeType") != "It":
                continue
            message = (spec.get("Failure") or {}).get("Message", "").strip()
            if spec["State"] == "skipped" and not message:
                continue
            name = " ".join((spec.get("ContainerHierarchyTexts") or []) + [spec["LeafNodeText"]])
            found[name.replace("[sig-network] ", "")] = (spec["State"], spec["RunTime"] / 1e9, message)
    return found


def baseline(path):
    """Name -> (state, seconds)."""
    line = re.compile(r"(passed|failed|skipped)\s+([\d.]+)\s+(.*?)(?:\s+-- .*)?$")
    matches = (line.match(text) for text in open(path))
    return {m[3].strip(): (m[1], float(m[2])) for m in matches if m}


def verdict(now, before):
    if now == before:
        return "same"
    if before is None:
        return "new"
    if now == "passed":
        return "better"
    # A test that could not run proves nothing, unless it could not run with kube-proxy either.
    return "WORSE" if before == "passed" else "other"


def main():
    now, before = tests(sys.argv[1]), baseline(sys.argv[2])
    if "--part" not in sys.argv:
        for name in before.keys() - now.keys():
            now[name] = ("not run", 0.0, "in the baseline, and not among the tests of this run")
    rows = []
    for name, (state, seconds, message) in now.items():
        old, old_seconds = before.get(name, (None, 0.0))
        rows.append((verdict(state, old), name, state, seconds, old or "-", old_seconds, message))
    rows.sort()
    print(f"{'':6}  {'rulecast':>16}  {'kube-proxy':>16}  test")
    count = {}
    for what, name, state, seconds, old, old_seconds, _ in rows:
        print(f"{what:6}  {state:8} {seconds:5.0f} s  {old:8} {old_seconds:5.0f} s  {name}")
        count[what] = count.get(what, 0) + 1
    for what, name, *_, message in rows:
        if what == "WORSE":
            print(f"\n{name}\n  " + "\n  ".join(message.splitlines()[:20]))
    print("\ntotal", len(rows), " ".join(f"{k}={v}" for k, v in sorted(count.items())))
    return 1 if count.get("WORSE") or not rows else 0


sys.exit(main())
