#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Who folds what: every pattern of patterns/ through every folding tool, as a Markdown table.

  pattern_table.py [--crease build/crease] [--tools crease,onnxsim,...] [--only TEXT] [--json FILE] [--keep FOLDER]

Needs, by pip: numpy onnx onnxruntime onnxsim onnxoptimizer onnxslim. Each tool works in a process of its own, so that a
crash is a cell of the table. The judge is ONNX Runtime with every optimisation off, on the original and on what the tool
wrote, on three random inputs; a difference over 1e-4 standard deviations of the output is a wrong fold.

Cells: folds (as few affine nodes left as an exact folder can leave), partly (fewer than before), leaves, keeps (a trap,
rightly left alone), BREAKS (the outputs differ), INVALID (onnx.checker or ONNX Runtime rejects the file), FAILS (the tool
gave up or crashed). Exit 1 if Crease has one of the last three.
"""
import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from patterns import PATTERNS, affine_nodes, random_inputs  # noqa: E402

TOOLS = ["crease", "onnxsim", "onnxoptimizer", "onnxslim", "onnxruntime"]
TOLERANCE = 1e-4
SECONDS = 60  # for one pattern
CELLS = ["folds", "partly", "leaves", "keeps", "BREAKS", "INVALID", "FAILS"]
BAD = CELLS[4:]


# --- in the tool's process -------------------------------------------------------------------------------------------

def fold_onnxsim(source, target):
    import onnx
    import onnxsim
    onnx.save(onnxsim.simplify(onnx.load(source))[0], target)


def fold_onnxoptimizer(source, target):
    import onnx
    import onnxoptimizer
    onnx.save(onnxoptimizer.optimize(onnx.load(source), onnxoptimizer.get_fuse_and_elimination_passes(), fixed_point=True), target)


def fold_onnxslim(source, target):
    import onnx
    import onnxslim
    onnx.save(onnxslim.slim(onnx.load(source)), target)


def fold_onnxruntime(source, target):
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = target
    options.log_severity_level = 4
    ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def fold_crease(source, target, binary):
    done = subprocess.run([binary, "fold", source, "-o", target], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"exit {done.returncode}: {done.stderr.strip()[-160:]}")


def work(tool, binary):
    """Folds what each line of stdin names; answers with one JSON line each."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the tools print is not an answer
    for line in sys.stdin:
        source, target = json.loads(line)
        try:
            if tool == "crease":
                fold_crease(source, target, binary)
            else:
                globals()[f"fold_{tool}"](source, target)
            error = "" if os.path.exists(target) else "wrote nothing"
        except Exception as e:
            error = f"{type(e).__name__}: {e}"[:200]
        answers.write(json.dumps(error) + "\n")
        answers.flush()


# --- in the caller's -------------------------------------------------------------------------------------------------

class Worker:
    """A tool in its own process, started again after a crash."""

    def __init__(self, tool, binary):
        self.command = [sys.executable, os.path.abspath(__file__), "--work", tool, "--crease", binary]
        self.process = None

    def fold(self, source, target):
        import select
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=subprocess.DEVNULL, text=True)
        self.process.stdin.write(json.dumps([source, target]) + "\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], SECONDS)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            self.process.kill()
            return f"exit {self.process.wait()}" if ready else f"still busy after {SECONDS} s"
        return json.loads(line)

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait()


def outputs(path, seed_feeds):
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    wanted = {i.name for i in session.get_inputs()}
    return [o.name for o in session.get_outputs()], [session.run(None, {k: v for k, v in feeds.items() if k in wanted})
                                                     for feeds in seed_feeds]


def difference(got, want):
    worst = 0.0
    for g, w in zip(got, want):
        for a, b in zip(g, w):
            if a.shape != b.shape:
                return float("inf")
            error = np.abs(a.astype(np.float64) - b).max() / max(b.astype(np.float64).std(), 1e-12)
            worst = max(worst, error if np.isfinite(error) else float("inf"))
    return worst


def judge(pattern, before, want, feeds, names, target):
    """(cell, detail) for a file that a tool wrote."""
    import onnx
    try:
        model = onnx.load(target)
        onnx.checker.check_model(model)
        found, got = outputs(target, feeds)
    except Exception as e:
        return "INVALID", str(e).splitlines()[0][:160]
    if found != names:
        return "BREAKS", "the outputs have other names"
    error = difference(got, want)
    if error > TOLERANCE:
        return "BREAKS", f"outputs differ by {error:.1e} standard deviations"
    left = len(affine_nodes(model))
    detail = f"{left} of {before} left, outputs differ by {error:.0e}"
    if left < before:
        return ("folds" if left <= pattern.best else "partly"), detail
    return ("keeps" if pattern.best >= before else "leaves"), detail


def versions(tools, binary):
    for tool in tools:
        if tool == "crease":
            done = subprocess.run([binary, "--version"], capture_output=True, text=True)
            yield f"Crease {done.stdout.split()[-1] if done.stdout.split() else '?'}"
        else:
            yield f"{tool} {importlib.metadata.version(tool)}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crease", default="")
    parser.add_argument("--tools", default=",".join(TOOLS))
    parser.add_argument("--only", default="")
    parser.add_argument("--json", default="")
    parser.add_argument("--keep", default="", help="folder for the patterns and what the tools wrote")
    parser.add_argument("--work", default="", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.work:
        return work(a.work, a.crease)
    tools = [t for t in a.tools.split(",") if t != "crease" or a.crease]
    workers = {tool: Worker(tool, os.path.abspath(a.crease) if a.crease else "") for tool in tools}
    rows, details = [], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = a.keep or temporary
        os.makedirs(folder, exist_ok=True)
        for index, pattern in enumerate(p for p in PATTERNS if a.only in p.name):
            import onnx
            source = f"{folder}/{index:03d}.onnx"
            model = pattern.model()
            onnx.save(model, source)
            feeds = [random_inputs(model, seed) for seed in range(3)]
            names, want = outputs(source, feeds)
            before = len(affine_nodes(model))
            row = {"pattern": pattern.name, "group": pattern.group, "affine_nodes": before, "best": pattern.best}
            for tool in tools:
                target = f"{folder}/{index:03d}.{tool}.onnx"
                error = workers[tool].fold(source, target)
                row[tool], detail = ("FAILS", error) if error else judge(pattern, before, want, feeds, names, target)
                row[f"{tool}_detail"] = detail
                if row[tool] in BAD:
                    details.append(f"- {tool}, {pattern.name}: {row[tool]}: {detail}")
            rows.append(row)
            print(f"{index + 1} {pattern.name}", file=sys.stderr)
    for worker in workers.values():
        worker.close()

    print(f"Made by `bench/pattern_table.py` with {', '.join(versions(tools, a.crease))}.\n")
    print("| pattern | affine nodes (least) | " + " | ".join(tools) + " |\n|---|---|" + "---|" * len(tools))
    group = None
    for row in rows:
        if row["group"] != group:
            group = row["group"]
            print(f"| **{group}** | |" + " |" * len(tools))
        print(f"| {row['pattern']} | {row['affine_nodes']} ({row['best']}) | " + " | ".join(
            f"**{row[t]}**" if row[t] in BAD else row[t] for t in tools) + " |")
    for cell in CELLS:
        print(f"| *{cell}* | | " + " | ".join(str(sum(r[t] == cell for r in rows)) for t in tools) + " |")
    if details:
        print("\nWhat broke or failed:\n" + "\n".join(details))
    if a.json:
        with open(a.json, "w") as f:
            json.dump(rows, f, indent=1)
    return int(any(row.get("crease") in BAD for row in rows))


if __name__ == "__main__":
    sys.exit(main())
