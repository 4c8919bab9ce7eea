#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Folding time and memory of Crease and onnxsim, file by file, in turns, in one run.

  fold_speed.py --crease build/crease [--rounds 3] [--json FILE] MODEL.onnx ...

Crease's time is its whole process, from exec to exit. onnxsim's is load + simplify + save inside a running interpreter:
starting Python and importing onnxsim (about a second, 100 MiB) is shown beside it but not counted against it. Memory is
the process's peak resident set as the kernel reports it; for onnxsim without what the imports had already taken. Times
are the least of the rounds, memory the largest. Needs onnx and onnxsim, by pip, under this interpreter.
"""
import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time

# This process must stay small: a child's peak counts from its fork. So nothing big is imported here.

ONNXSIM = """
import json, resource, sys, time
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
import onnx, onnxsim
before, start = peak(), time.perf_counter()
model, ok = onnxsim.simplify(onnx.load(sys.argv[1]))
onnx.save(model, sys.argv[2])
print("RESULT" + json.dumps([1e3 * (time.perf_counter() - start), peak() - before]))
"""
COUNT = """
import sys, onnx
for path in sys.argv[1:]:
    print(sum(n.op_type == "BatchNormalization" for n in onnx.load(path, load_external_data=False).graph.node))
"""


def run(command):
    """(milliseconds, peak MiB, stdout) of a process."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        elapsed = 1e3 * (time.perf_counter() - start)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        if process.returncode:
            raise RuntimeError(f"{command[0]}: exit {process.returncode}: {err.read().strip()[-200:]}")
        return elapsed, usage.ru_maxrss / 1024, out.read()


def crease_round(binary, source, target):
    elapsed, peak, _ = run([binary, "fold", source, "-o", target])
    return {"ms": elapsed, "mib": peak, "process_ms": elapsed, "process_mib": peak}


def onnxsim_round(source, target):
    elapsed, peak, out = run([sys.executable, "-c", ONNXSIM, source, target])
    inside = json.loads(out[out.index("RESULT") + 6:].splitlines()[0])
    return {"ms": inside[0], "mib": inside[1], "process_ms": elapsed, "process_mib": peak}


def best(rounds):
    return {"ms": min(r["ms"] for r in rounds), "mib": max(r["mib"] for r in rounds),
            "process_ms": min(r["process_ms"] for r in rounds), "process_mib": max(r["process_mib"] for r in rounds)}


def measure(path, binary, rounds, folder):
    """{"crease": ..., "onnxsim": ..., "file_mib"}; a tool that fails has an "error"."""
    tools = {"crease": lambda t: crease_round(binary, path, t), "onnxsim": lambda t: onnxsim_round(path, t)}
    row = {"model": os.path.basename(path).removesuffix(".onnx"), "file_mib": os.path.getsize(path) / 2 ** 20}
    taken = {tool: [] for tool in tools}
    with open(path, "rb") as f:  # the page cache is warm for both
        while f.read(1 << 24):
            pass
    for _ in range(rounds):
        for tool, once in tools.items():
            if tool in row:
                continue
            try:
                taken[tool].append(once(f"{folder}/{tool}.onnx"))
            except (RuntimeError, ValueError) as e:
                row[tool] = {"error": str(e)}
    for tool in tools:
        if tool not in row:
            row[tool] = best(taken[tool])
            row[tool]["batchnorms_left"] = int(run([sys.executable, "-c", COUNT, f"{folder}/{tool}.onnx"])[2])
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--crease", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", default="")
    a = parser.parse_args()
    rows, ratios = [], []
    print("| model | file MiB | Crease ms | onnxsim ms (process) | onnxsim / Crease | Crease peak MiB (of file) "
          "| onnxsim peak MiB (process) | batch-norms left: Crease, onnxsim |\n|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for path in a.models:
            row = measure(path, os.path.abspath(a.crease), a.rounds, folder)
            rows.append(row)
            c, o = row["crease"], row["onnxsim"]
            if "error" in c or "error" in o:
                print(f"| {row['model']} | {row['file_mib']:.1f} | {c.get('error', '')} | {o.get('error', '')} | | | | |", flush=True)
                continue
            ratios.append(o["ms"] / c["ms"])
            print(f"| {row['model']} | {row['file_mib']:.1f} | {c['ms']:.1f} | {o['ms']:.1f} ({o['process_ms']:.0f}) "
                  f"| {ratios[-1]:.1f}x | {c['mib']:.1f} ({c['mib'] / row['file_mib']:.2f}x) "
                  f"| {o['mib']:.1f} ({o['process_mib']:.1f}) | {c['batchnorms_left']}, {o['batchnorms_left']} |", flush=True)
    if ratios:
        geomean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        print(f"\nonnxsim / Crease over {len(ratios)} files: geometric mean {geomean:.1f}x, least {min(ratios):.1f}x.")
    if a.json:
        with open(a.json, "w") as f:
            json.dump(rows, f, indent=1)
    return int(any("error" in row["crease"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
