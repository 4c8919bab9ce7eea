# SPDX-License-Identifier: Apache-2.0
"""`crease lint`: one network for each finding, and none for a sound one."""
import re

import numpy as np
import pytest
from onnx import helper

from helpers import (DIGITS, FINDING, OK, batchnorm_node, batchnorm_tensors, conv_bn_relu, make_model, save, tensor)


def lint(crease, path, expect):
    found = crease.json("lint", path, expect=expect)
    findings = found if isinstance(found, list) else found["findings"]
    assert all(isinstance(f["code"], str) and re.fullmatch(r"[a-z0-9-]+", f["code"]) for f in findings)
    return findings


def replace(model, name, values):
    next(t for t in model.graph.initializer if t.name == name).CopyFrom(tensor(name, values))
    return model


def batch_statistics(shape):
    rng = np.random.default_rng(0)
    return make_model([batchnorm_node("x", "y", training_mode=1)], batchnorm_tensors(3, rng), {"x": shape}, {"y": shape})


def unfolded(rng):
    """A batch-norm that nothing can absorb: between the input and a Sigmoid."""
    return make_model([batchnorm_node("x", "n"), helper.make_node("Sigmoid", ["n"], ["y"])], batchnorm_tensors(3, rng),
                      {"x": [2, 3, 4, 4]}, {"y": [2, 3, 4, 4]})


# name -> (network, what the finding's code must speak of)
CASES = {
    "training mode": (lambda rng: conv_bn_relu(rng, training_mode=1), "train"),
    "redundant bias": (lambda rng: conv_bn_relu(rng, bias=True), "bias"),
    "few samples": (lambda rng: batch_statistics([1, 3, 1, 2]), "batch|sample|statistic"),
    "negative variance": (lambda rng: replace(conv_bn_relu(rng, bias=False), "bn_var", [1, -1, 1, 1, 1]), "var"),
    "NaN variance": (lambda rng: replace(conv_bn_relu(rng, bias=False), "bn_var", [1, np.nan, 1, 1, 1]), "var"),
    "never trained": (lambda rng: replace(replace(conv_bn_relu(rng, bias=False), "bn_var", np.ones(5)),
                                          "bn_mean", np.zeros(5)), "train"),
    "denormal weights": (lambda rng: replace(conv_bn_relu(rng, bias=False), "w", np.full((5, 3, 3, 3), 1e-40)), "denormal"),
    "unfolded": (unfolded, "unfold"),
}


@pytest.mark.parametrize("case", CASES)
def test_finding(crease, rng, tmp_path, case):
    make, speaks_of = CASES[case]
    path = save(make(rng), tmp_path / "m.onnx")
    codes = [f["code"] for f in lint(crease, path, FINDING)]
    assert any(re.search(speaks_of, code) for code in codes), codes
    text = crease("lint", path, expect=FINDING).stdout
    assert all(code in text for code in codes), "the text names the same codes"


def test_a_sound_network(crease, rng, tmp_path):
    assert lint(crease, f"{DIGITS}/digits.onnx", OK) == []
    assert lint(crease, save(conv_bn_relu(rng, bias=False), tmp_path / "m.onnx"), OK) == []


def test_enough_samples(crease, tmp_path):
    few = [f["code"] for f in lint(crease, save(batch_statistics([1, 3, 1, 2]), tmp_path / "few.onnx"), FINDING)]
    many = [f["code"] for f in lint(crease, save(batch_statistics([8, 3, 4, 4]), tmp_path / "many.onnx"), FINDING)]
    assert set(many) < set(few), "training mode is one finding, too few samples another"
