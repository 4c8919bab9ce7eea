# SPDX-License-Identifier: Apache-2.0
"""The cases by which ONNX itself states what its operators mean: every one is run, and what Crease does not refuse must
come out as ONNX has it.

A case is run as it is; refused so (a shape that only the run would tell), it is run again with all inputs but the first
as constants. Refusals are not counted as failures, but crashes and wrong results are.
"""
import collections
import warnings

import numpy as np
import onnx
from onnx import numpy_helper

from helpers import BAD_INPUT, OK

# Where Crease follows PyTorch and ONNX Runtime: align_corners maps the last pixel of the result, whose size is a whole
# number, to the last one of the source; ONNX's own code takes scale * size, which is not.
DIFFERENT = {"test_resize_downsample_scales_linear_align_corners", "test_resize_downsample_scales_cubic_align_corners"}
# The fewest that must agree, of some 1,100, so that a test of nothing does not pass.
LEAST = 900


def cases():
    """(name, model, inputs, outputs) of every case of one operator whose inputs and outputs are arrays."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numpy, about overflows that the cases ask for
        from onnx.backend.test.case.node import collect_testcases

        collected = collect_testcases(None)
    for case in collected:
        if case.model is None or not case.data_sets:
            continue
        inputs, outputs = case.data_sets[0]
        if all(isinstance(value, (np.ndarray, np.generic)) for value in [*inputs, *outputs]):
            yield case.name, case.model, [np.asarray(v) for v in inputs], [np.asarray(v) for v in outputs]


def with_constants(model, inputs):
    """The model with every input but the first as an initializer."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    for info, value in list(zip(graph.input, inputs))[1:]:
        graph.initializer.append(numpy_helper.from_array(value, info.name))
    del graph.input[1:]
    return changed, inputs[:1]


def close(found, expected):
    half = expected.dtype == np.float16
    return np.allclose(found, expected, rtol=2e-3 if half else 1e-3, atol=1e-3 if half else 1e-5, equal_nan=True)


def run(crease, folder, model, inputs, outputs):
    """None if all agrees, "refused", or what is wrong."""
    onnx.save(model, folder / "m.onnx")
    np.savez(folder / "in.npz", **{info.name: value for info, value in zip(model.graph.input, inputs)})
    done = crease("run", folder / "m.onnx", "--input", folder / "in.npz", "--output", folder / "out.npz", "--quiet",
                  expect=None)
    if done.returncode == BAD_INPUT and done.stderr.strip():
        return "refused"
    if done.returncode != OK:
        return f"exit {done.returncode}: {done.stderr[-300:]}"
    with np.load(folder / "out.npz") as out:
        for info, expected in zip(model.graph.output, outputs):
            if not info.name:
                continue
            found = out[info.name]
            if found.shape != expected.shape or found.dtype != expected.dtype:
                return f"{info.name} is {found.dtype}{found.shape}, not {expected.dtype}{expected.shape}"
            if not close(found, expected):
                return f"{info.name} differs"
    return None


def test_cases_of_onnx(crease, tmp_path):
    results = collections.Counter()
    wrong = []
    for name, model, inputs, outputs in cases():
        result = run(crease, tmp_path, model, inputs, outputs)
        if result == "refused" and len(inputs) > 1:
            result = run(crease, tmp_path, *with_constants(model, inputs), outputs)
        results[result if result == "refused" else "right" if result is None else "wrong"] += 1
        if result not in (None, "refused") and name not in DIFFERENT:
            wrong.append(f"{name}: {result}")
    print(dict(results))
    assert not wrong, "\n".join(wrong)
    assert results["right"] >= LEAST, results
