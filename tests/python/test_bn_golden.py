# SPDX-License-Identifier: Apache-2.0
"""The golden batch-norm cases hold what make_bn_golden.py says they hold: read by its description, computed in double."""
import json

import numpy as np
import pytest

from helpers import REPO

DATA = f"{REPO}/tests/data/batchnorm_golden"
with open(f"{DATA}.json") as f:
    INDEX = json.load(f)
with np.load(f"{DATA}.npz") as npz:
    FLAT = {name: npz[name] for name in npz.files}
# Half a unit in the last place of bf16 and f16, and room for PyTorch's own sums.
RELATIVE = {"f64": 1e-12, "f32": 1e-5, "bf16": 2.0 ** -8, "f16": 2.0 ** -11}


def array(reference):
    kind, offset, shape = reference
    flat = FLAT["u16" if kind in ("bf16", "f16") else kind][offset:offset + int(np.prod(shape))]
    if kind == "bf16":
        flat = (flat.astype(np.uint32) << 16).view(np.float32)
    elif kind == "f16":
        flat = flat.view(np.float16)
    return flat.astype(np.float64).reshape(shape)


def close(got, reference, kind, slack=1.0):
    want = array(reference)
    tolerance = slack * RELATIVE[kind]
    return np.abs(got - want).max() <= tolerance * max(1.0, np.abs(want).max())


@pytest.mark.parametrize("case", INDEX["cases"], ids=lambda c: c["name"])
def test_case(case):
    channels, tracks = case["num_features"], case["track_running_stats"]
    weight = array(case["weight"]) if case["affine"] else np.ones(channels)
    bias = array(case["bias"]) if case["affine"] else np.zeros(channels)
    mean, var = (array(case["running_mean"]), array(case["running_var"])) if tracks else (None, None)
    kind = "f64" if case["exact"] else case["dtype"]
    state_kind = "f64" if case["exact"] else case["param_dtype"]
    slack = 3 if state_kind in ("bf16", "f16") else 2
    batches = 0
    for step in case["steps"]:
        x = array(step["x"])
        x = x[None] if case["unbatched"] else x
        axes = tuple(i for i in range(x.ndim) if i != 1)
        shape = [1, channels] + [1] * (x.ndim - 2)
        batch_mean, batch_var = x.mean(axes), x.var(axes)
        if step["training"] and tracks:
            batches += 1
            factor = case["momentum"] if case["momentum"] is not None else 1 / batches
            n = x.size // channels
            mean = (1 - factor) * mean + factor * batch_mean
            var = (1 - factor) * var + factor * batch_var * n / (n - 1)
        used = (mean, var) if tracks and not step["training"] else (batch_mean, batch_var)
        scale = weight / np.sqrt(used[1] + case["eps"])
        if case["exact"]:  # a large mean costs digits in double too
            slack = max(2, np.abs(x).max() / np.sqrt(used[1].min() + case["eps"]))
        y = (x - used[0].reshape(shape)) * scale.reshape(shape) + bias.reshape(shape)
        assert close(y[0] if case["unbatched"] else y, step["y"], kind, slack)
        if tracks:
            assert step["num_batches_tracked"] == batches
            assert close(mean, step["running_mean"], state_kind, slack) and close(var, step["running_var"], state_kind, slack)
            mean, var = array(step["running_mean"]), array(step["running_var"])


def test_every_option_is_there():
    cases = [c for c in INDEX["cases"] if c["rank"] == 2]
    for dtype in ("f32", "f64", "bf16", "f16"):
        for unbatched in (False, True):
            found = {(c["affine"], c["track_running_stats"], c["momentum"], s["training"])
                     for c in cases if (c["dtype"], c["unbatched"]) == (dtype, unbatched) for s in c["steps"]}
            for affine in (False, True):
                for training in (False, True):
                    assert {(affine, True, 0.1, training), (affine, True, None, training), (affine, False, 0.1, training)} <= found
    assert {c["rank"] for c in INDEX["cases"]} == {1, 2, 3}


def test_documented_example():
    case = next(c for c in INDEX["cases"] if c["name"] == "documented_example")
    x = array(case["steps"][0]["x"])
    assert x.shape == (2, 3, 4, 4) and 3 < x.mean() < 7 and 8 < x.std() < 12
    y = array(case["steps"][0]["y"])
    assert np.abs(y.mean((0, 2, 3))).max() < 1e-6 and np.abs(y.std((0, 2, 3)) - 1).max() < 1e-4
