#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Batch normalization alone, Crease against PyTorch, oneDNN, ONNX Runtime and OpenVINO, in turns, on this machine.

  peers_batchnorm.py [--crease build/bench/bench_batchnorm] [--modes eval,train] [--layouts NCHW,NHWC] [--threads 1,2]
                     [--peers torch,onednn,ort,openvino] [--shapes 32x256x56x56,...] [--rounds 5] [--seconds 0.2] [--json FILE]

Needs, by pip: numpy onnx torch==2.13.0 onnxruntime openvino. Every engine is checked against a double-precision result
before it is timed, then all take turns, round by round, each in a process of its own that sleeps while another runs. What
counts is the ratio inside one run: of the medians over the rounds, or with --best of the least times.

eval is y = (x - mean) / sqrt(var + eps) * gamma + beta, f32; train normalizes by the batch and updates the running
statistics. NHWC is PyTorch's channels_last; ONNX knows NCHW only, so ONNX Runtime and OpenVINO sit NHWC out, and train,
which they do not have on the CPU. oneDNN is the one inside PyTorch, given a tensor in its own memory (Tensor.to_mkldnn),
which is NCHW for every shape here; our own build of oneDNN has no batch normalization. Its time includes PyTorch's call,
some microseconds.

`bound` is the least time in which the traffic can be moved: the faster of memcpy and the streaming copy; for training by
two passes over memory (NHWC, or a channel that does not fit into L2 twice) that and the time of one read; for training
in caches the time of `two_pass`, which reads and copies, a channel or 16 KB at a time in NCHW. The last columns are the
bound's time over Crease's, and the fastest peer's over Crease's.

The Crease side is `bench/bench_batchnorm --turns`, started once a round and case: kernel, copies and read take turns in
one process there. --crease-json FILE joins what an earlier run of it printed instead.
"""
import argparse
import json
import math
import multiprocessing as mp
import os
import statistics
import subprocess
import sys
import tempfile
import time

SHAPES = ["32x256x56x56", "1x64x112x112", "8x2048x7x7", "1x3x1080x1920", "256x24x28x28", "1x960x7x7"]
EPS = 1e-5
TOLERANCE = {"eval": 2e-6, "train": 1e-5}  # largest |difference| over the largest |value|


def make_case(shape, seed=42):
    """x, gamma, beta, mean, var"""
    import numpy as np
    rng = np.random.default_rng(seed)
    channels = shape[1]
    x = rng.standard_normal(shape, dtype=np.float32)
    return (x, *(v.astype(np.float32) for v in (rng.uniform(0.5, 1.5, channels), rng.normal(0, 1, channels),
                                                rng.normal(0, 0.5, channels), rng.uniform(0.3, 2, channels))))


def check(got, shape, mode):
    """Largest difference from double precision over the largest value; by slices, so that it needs little memory."""
    import numpy as np
    x, gamma, beta, mean, var = make_case(shape)
    worst = peak = 0.0
    for c in range(shape[1]):
        values = x[:, c].astype(np.float64)
        m, v = (mean[c], var[c]) if mode == "eval" else (values.mean(), values.var())
        want = (values - float(m)) / math.sqrt(float(v) + EPS) * float(gamma[c]) + float(beta[c])
        worst, peak = max(worst, np.abs(got[:, c] - want).max()), max(peak, np.abs(want).max())
    return float(worst / peak)


class Torch:
    def __init__(self, shape, mode, layout, threads):
        import torch
        torch.set_num_threads(threads)
        self.torch = torch
        x, gamma, beta, mean, var = (torch.from_numpy(a) for a in make_case(shape))
        if layout == "NHWC":
            x = x.contiguous(memory_format=torch.channels_last)
        self.x, self.module = x, torch.nn.BatchNorm2d(shape[1], eps=EPS).train(mode == "train")
        with torch.no_grad():
            for target, value in ((self.module.weight, gamma), (self.module.bias, beta), (self.module.running_mean, mean),
                                  (self.module.running_var, var)):
                target.copy_(value)

    def run(self):
        with self.torch.inference_mode():
            return self.module(self.x)

    def result(self):
        return self.run().numpy()


class OneDnn:
    def __init__(self, shape, mode, layout, threads):
        import torch
        torch.set_num_threads(threads)
        self.torch, self.training = torch, mode == "train"
        x, *self.parameters = (torch.from_numpy(a) for a in make_case(shape))
        self.x = x.to_mkldnn()

    def run(self):
        with self.torch.inference_mode():
            return self.torch.batch_norm(self.x, *self.parameters, self.training, 0.1, EPS, False)

    def result(self):
        return self.run().to_dense().numpy()


def onnx_file(shape, folder):
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    names = ("gamma", "beta", "mean", "var")
    tensors = [numpy_helper.from_array(a, n) for n, a in zip(names, make_case(shape)[1:])]
    info = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    graph = helper.make_graph([helper.make_node("BatchNormalization", ["x", *names], ["y"], epsilon=EPS)], "bn", [info("x")],
                              [info("y")], tensors)
    path = os.path.join(folder, "bn.onnx")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


class Ort:
    def __init__(self, shape, mode, layout, threads):
        import numpy as np
        import onnxruntime as ort
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        with tempfile.TemporaryDirectory() as folder:
            self.session = ort.InferenceSession(onnx_file(shape, folder), options, providers=["CPUExecutionProvider"])
        self.y = np.empty(shape, np.float32)
        self.x = make_case(shape)[0]
        self.binding = self.session.io_binding()
        self.binding.bind_cpu_input("x", self.x)
        self.binding.bind_output("y", "cpu", 0, np.float32, shape, self.y.ctypes.data)

    def run(self):
        self.session.run_with_iobinding(self.binding)

    def result(self):
        self.run()
        return self.y


class OpenVino:
    def __init__(self, shape, mode, layout, threads):
        import numpy as np
        import openvino as ov
        with tempfile.TemporaryDirectory() as folder:
            compiled = ov.Core().compile_model(onnx_file(shape, folder), "CPU", {
                "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"})
        self.request = compiled.create_infer_request()
        self.x, self.y = ov.Tensor(make_case(shape)[0]), ov.Tensor(np.empty(shape, np.float32))
        self.request.set_input_tensor(self.x)
        self.request.set_output_tensor(self.y)

    def run(self):
        self.request.infer()

    def result(self):
        self.run()
        return self.y.data


ENGINES = {"torch": Torch, "onednn": OneDnn, "ort": Ort, "openvino": OpenVino}


def takes_part(engine, mode, layout):
    return engine == "torch" or layout == "NCHW" and (engine == "onednn" or mode == "eval")


def work(pipe, engine):
    """An engine's process: a case to set up and check, then seconds to be timed for, until None; the next case, until None."""
    while (case := pipe.recv()) is not None:
        runner = None
        try:
            runner = ENGINES[engine](*case)
            pipe.send(("ok", check(runner.result(), case[0], case[1])))
        except Exception as e:
            pipe.send(("error", f"{type(e).__name__}: {e}"[:160]))
        while (seconds := pipe.recv()) is not None:
            runner.run()
            times, end = [], time.perf_counter() + seconds
            while time.perf_counter() < end or len(times) < 3:
                start = time.perf_counter()
                runner.run()
                times.append(1e3 * (time.perf_counter() - start))
            pipe.send((statistics.median(times), min(times)))


class Workers:
    """A process for every engine, started when it is first asked for and again where it died."""

    def __init__(self):
        self.context, self.running = mp.get_context("spawn"), {}

    def pipe(self, engine):
        if engine not in self.running or not self.running[engine][0].is_alive():
            here, there = self.context.Pipe()
            process = self.context.Process(target=work, args=(there, engine), daemon=True)
            process.start()
            there.close()
            self.running[engine] = (process, here)
        return self.running[engine][1]

    def stop(self):
        for process, pipe in self.running.values():
            if process.is_alive():
                pipe.send(None)
                process.join(5)


# --- the Crease side -------------------------------------------------------------------------------------------------

OURS = ["crease", "memcpy", "stream_copy", "read", "two_pass"]
L2_BYTES = int(subprocess.run(["getconf", "LEVEL2_CACHE_SIZE"], capture_output=True, text=True).stdout or 0) or 1 << 20


def our_times(report, case):
    """{engine: (median, least) milliseconds} of a case in what bench_batchnorm --turns prints."""
    shape, mode, layout, threads = case
    times = report.get(f"{shape}/{layout}/threads:{threads}", {})
    return {engine: tuple(1e-3 * times[name][which] for which in ("median", "least"))
            for engine, name in zip(OURS, [mode, *OURS[1:]]) if name in times}


def crease_round(binary, case, seconds):
    shape, _, layout, threads = case
    # Up to eight contenders share the time.
    command = [binary, f"--turns={8 * seconds}", f"--cases=^{shape}/{layout}/threads:{threads}$"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()[-200:]}")
    return our_times(json.loads(done.stdout), case)


def measure(case, a, report, workers):
    """{engine: {"ms": ..., "least_ms": ...} or {"error": ...}}"""
    shape_name, mode, layout, threads = case
    shape = tuple(int(n) for n in shape_name.split("x"))
    engines, row = {}, {}
    for engine in a.peers.split(","):
        if not takes_part(engine, mode, layout):
            continue
        pipe = workers.pipe(engine)
        pipe.send((shape, mode, layout, threads))
        try:
            kind, value = pipe.recv()
        except EOFError:
            row[engine] = "the process died"
            continue
        if kind == "ok" and value <= TOLERANCE[mode]:
            engines[engine], row[engine] = pipe, []
        else:
            row[engine] = value if kind == "error" else f"wrong by {value:.1e}"
            pipe.send(None)
    rounds = []
    for _ in range(a.rounds):
        if a.crease:
            rounds.append(crease_round(a.crease, case, a.seconds))
        for engine, pipe in engines.items():
            pipe.send(a.seconds)
            row[engine].append(pipe.recv())
    for pipe in engines.values():
        pipe.send(None)
    if report:
        rounds.append(our_times(report, case))
    for engine in OURS:
        if times := [r[engine] for r in rounds if engine in r]:
            row[engine] = times
    return {engine: {"ms": statistics.median(m for m, _ in v), "least_ms": min(least for _, least in v)}
            if isinstance(v, list) else {"error": v} for engine, v in row.items()}


def two_passes(case):
    """Whether the tensor must be read from memory twice; as bench_batchnorm.cc has it."""
    shape, mode, layout, _ = case
    n, c, h, w = (int(v) for v in shape.split("x"))
    return mode == "train" and (layout == "NHWC" or 2 * 4 * n * h * w > L2_BYTES)


def bound_of(case, ms):
    """The least time for the case's traffic, from {engine: milliseconds}; None without copies."""
    if case[1] == "train" and "two_pass" in ms:  # timed where caches hold the tensor
        return ms["two_pass"]
    copies = [ms[e] for e in ("memcpy", "stream_copy") if e in ms]
    return min(copies) + (ms.get("read", 0) if two_passes(case) else 0) if copies else None


def print_row(case, row, engines, which):
    """Prints a line of the table; (bound's time over Crease's, fastest peer's over Crease's), either None."""
    ms = {engine: row[engine][which] for engine in engines if which in row.get(engine, {})}
    bound = bound_of(case, ms)
    peers = [v for engine, v in ms.items() if engine not in OURS]
    ratios = [value / ms["crease"] if value and "crease" in ms else None for value in (bound, min(peers, default=None))]
    cells = [f"{ms[e]:.4f}" if e in ms else row.get(e, {}).get("error", "") for e in engines]
    cells += [f"{bound:.4f}" if bound else ""] + [f"{r:.2f}" if r else "" for r in ratios]
    print("| " + " | ".join([*map(str, case), *cells]) + " |", flush=True)
    return ratios


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crease", default="")
    parser.add_argument("--crease-json", default="")
    parser.add_argument("--peers", default="torch,onednn,ort,openvino")
    parser.add_argument("--modes", default="eval,train")
    parser.add_argument("--layouts", default="NCHW,NHWC")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--best", action="store_true", help="least times instead of medians")
    parser.add_argument("--json", default="")
    a = parser.parse_args()
    report = None
    if a.crease_json:
        with open(a.crease_json) as f:
            report = json.load(f)
    engines = (OURS if a.crease or report else []) + a.peers.split(",")
    print("Milliseconds, " + ("least" if a.best else "median") + " of the rounds.\n")
    print("| shape | mode | layout | threads | " + " | ".join(engines) + " | bound | bound/crease | peer/crease |\n|---|---|---|---|"
          + "---|" * (len(engines) + 3))
    table, ratios, workers = [], [], Workers()
    for mode in a.modes.split(","):
        for layout in a.layouts.split(","):
            for threads in map(int, a.threads.split(",")):
                for shape in a.shapes.split(","):
                    case = (shape, mode, layout, threads)
                    row = measure(case, a, report, workers)
                    ratios.append(print_row(case, row, engines, "least_ms" if a.best else "ms")[1])
                    table.append({"shape": shape, "mode": mode, "layout": layout, "threads": threads, "engines": row})
                    if a.json:
                        with open(a.json, "w") as f:
                            json.dump(table, f, indent=1)
    workers.stop()
    ratios = [r for r in ratios if r]
    if ratios:
        print(f"\nfastest peer / Crease over {len(ratios)} cases: geometric mean "
              f"{math.exp(sum(map(math.log, ratios)) / len(ratios)):.2f}x, least {min(ratios):.2f}x")
    return 0


if __name__ == "__main__":
    sys.exit(main())
