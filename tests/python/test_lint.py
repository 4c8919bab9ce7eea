# SPDX-License-Identifier: Apache-2.0
"""`crease lint`: one network for each finding, and none for a sound one."""
import re

import numpy as np
import onnx
import pytest
from onnx import helper

from helpers import (DIGITS, FINDING, OK, batchnorm_node, batchnorm_tensors, conv_bn_relu, judge, make_model, random_feeds,
                     save, tensor, worst_error)


def lint(crease, path, expect):
    found = crease.json("lint", path, expect=expect)
    findings = found["findings"]
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


# code -> networks that have it
CASES = {
    "training-mode": [lambda rng: conv_bn_relu(rng, bias=False, training_mode=1)],
    "redundant-bias": [lambda rng: conv_bn_relu(rng, bias=True)],
    "few-samples": [lambda rng: batch_statistics([1, 3, 1, 2])],
    "bad-variance": [lambda rng: replace(conv_bn_relu(rng, bias=False), "bn_var", [1, -1, 1, 1, 1]),
                     lambda rng: replace(conv_bn_relu(rng, bias=False), "bn_var", [1, np.nan, 1, 1, 1]),
                     lambda rng: replace(conv_bn_relu(rng, bias=False), "bn_var", [1, np.inf, 1, 1, 1])],
    "untrained-statistics": [lambda rng: replace(replace(conv_bn_relu(rng, bias=False), "bn_var", np.ones(5)),
                                                 "bn_mean", np.zeros(5))],
    "denormal-weights": [lambda rng: replace(conv_bn_relu(rng, bias=False), "w", np.full((5, 3, 3, 3), 1e-40))],
    "unfolded": [unfolded],
}
PAIRS = [(code, i) for code, networks in CASES.items() for i in range(len(networks))]


@pytest.mark.parametrize("code, index", PAIRS)
def test_finding(crease, rng, tmp_path, code, index):
    path = save(CASES[code][index](rng), tmp_path / "m.onnx")
    codes = {f["code"] for f in lint(crease, path, FINDING)}
    also = {"training-mode": {"unfolded"}, "few-samples": {"training-mode", "unfolded"}, "bad-variance": {"unfolded"}}
    assert {code} <= codes <= {code} | also.get(code, set())
    text = crease("lint", path, expect=FINDING).stdout
    assert all(c in text for c in codes), "the text names the same codes"


@pytest.mark.parametrize("code", ["training-mode", "redundant-bias", "denormal-weights"])
def test_fix(crease, rng, tmp_path, code):
    model = CASES[code][0](rng)
    path, fixed = save(model, tmp_path / "m.onnx"), str(tmp_path / "fixed.onnx")
    crease("lint", path, "--fix", "-o", fixed, expect=(OK, FINDING))
    assert code not in {f["code"] for f in lint(crease, fixed, (OK, FINDING))}
    onnx.checker.check_model(onnx.load(fixed), full_check=True)
    feeds = random_feeds(model, rng)
    if code != "training-mode":
        assert worst_error(judge(fixed, feeds), judge(path, feeds)) <= 1e-5
    else:
        assert not any(a.name == "training_mode" and a.i for n in onnx.load(fixed).graph.node for a in n.attribute)
        judge(fixed, feeds)


def test_a_sound_network(crease, rng, tmp_path):
    assert lint(crease, f"{DIGITS}/digits.onnx", OK) == []
    assert lint(crease, save(conv_bn_relu(rng, bias=False), tmp_path / "m.onnx"), OK) == []


def test_enough_samples(crease, tmp_path):
    few = [f["code"] for f in lint(crease, save(batch_statistics([1, 3, 1, 2]), tmp_path / "few.onnx"), FINDING)]
    many = [f["code"] for f in lint(crease, save(batch_statistics([8, 3, 4, 4]), tmp_path / "many.onnx"), FINDING)]
    assert set(many) < set(few), "training mode is one finding, too few samples another"


def dropout(rng, training, ratio=0.5):
    """x -> BatchNormalization -> Dropout -> Conv; `training`: the value of training_mode."""
    nodes = [batchnorm_node("x", "n"), helper.make_node("Dropout", ["n", "ratio", "training"], ["d"], name="drop"),
             helper.make_node("Conv", ["d", "w"], ["y"])]
    constants = [tensor("ratio", ratio), tensor("training", training, bool), tensor("w", rng.normal(size=(2, 3, 1, 1)))]
    return make_model(nodes, constants + batchnorm_tensors(3, rng), {"x": ["N", 3, 4, 4]}, {"y": ["N", 2, 4, 4]})


def test_dropout_in_training_mode(crease, rng, tmp_path):
    path, fixed = save(dropout(rng, True), tmp_path / "m.onnx"), str(tmp_path / "fixed.onnx")
    found = {f["code"]: f["node"] for f in lint(crease, path, FINDING)}
    assert found["training-mode"] == "drop" and set(found) <= {"training-mode", "unfolded"}
    done = crease.json("lint", path, "--fix", "-o", fixed)
    assert [(f["code"], f["node"], f["fixed"]) for f in done["findings"]] == [("training-mode", "drop", True)]
    onnx.checker.check_model(onnx.load(fixed), full_check=True)
    assert [len(n.input) for n in onnx.load(fixed).graph.node if n.op_type == "Dropout"] == [2]
    feeds = random_feeds(onnx.load(fixed), rng)
    assert worst_error(crease.run(fixed, feeds), judge(fixed, feeds)) <= 1e-5
    assert lint(crease, save(dropout(rng, False), tmp_path / "sound.onnx"), OK) == []
    keeps = {f["code"] for f in lint(crease, save(dropout(rng, True, ratio=0.0), tmp_path / "keeps.onnx"), (OK, FINDING))}
    assert "training-mode" not in keeps, "it drops nothing"


def test_a_repaired_node_keeps_its_words(crease, rng, tmp_path):
    model = conv_bn_relu(rng, bias=False, training_mode=1)
    for node in model.graph.node:
        node.doc_string = f"of {node.op_type}"
        node.metadata_props.add(key="who", value="me")
    crease("lint", save(model, tmp_path / "m.onnx"), "--fix", "-o", tmp_path / "fixed.onnx")
    for before, after in zip(model.graph.node, onnx.load(tmp_path / "fixed.onnx").graph.node):
        assert (after.doc_string, list(after.metadata_props)) == (before.doc_string, list(before.metadata_props))
        assert (after.op_type, after.name) == (before.op_type, before.name)


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
def test_what_a_repair_mends_and_shows(crease, rng, tmp_path, bias):
    """A batch-norm in training mode does not fold; in inference mode it does, and makes a bias redundant."""
    path, fixed = save(conv_bn_relu(rng, bias=bias, training_mode=1), tmp_path / "m.onnx"), str(tmp_path / "fixed.onnx")
    assert {f["code"] for f in lint(crease, path, FINDING)} == {"training-mode", "unfolded"}
    done = crease.json("lint", path, "--fix", "-o", fixed)
    wanted = ["training-mode"] + (["redundant-bias"] if bias else [])
    assert [(f["code"], f["fixed"]) for f in done["findings"]] == [(code, True) for code in wanted]
    assert lint(crease, fixed, OK) == []
