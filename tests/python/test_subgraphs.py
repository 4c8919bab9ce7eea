# SPDX-License-Identifier: Apache-2.0
"""Batch-norms in bodies of If, Loop and Scan and in local functions: left as they are, and all of them accounted for."""
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from helpers import FINDING, batchnorm_node, batchnorm_tensors, make_model, save, tensor

SHAPE = [1, 3, 4, 4]
value = lambda name, dtype=TensorProto.FLOAT, shape=SHAPE: helper.make_tensor_value_info(name, dtype, shape)


def body(prefix, inputs=(), data="x", **attributes):
    """Reads the batch-norm's parameters, and `data`, from outside. Its batch-norm's node has no name."""
    node = batchnorm_node(data, f"{prefix}_y", **attributes)
    node.ClearField("name")
    if len(node.output) > 1:
        node.output[1], node.output[2] = f"{prefix}_m", f"{prefix}_v"
    return helper.make_graph([node], prefix, list(inputs), [value(f"{prefix}_y")])


def branches(**attributes):
    return [helper.make_node("If", ["c"], ["z"], name="choice", then_branch=body("a", **attributes),
                             else_branch=body("b", **attributes))]


def nested(**attributes):
    inner = helper.make_node("If", ["c"], ["i"], then_branch=body("a", **attributes), else_branch=body("b", **attributes))
    outer = lambda name: helper.make_graph([inner], name, [], [value("i")])
    same = helper.make_graph([helper.make_node("Identity", ["x"], ["s"])], "same", [], [value("s")])
    return [helper.make_node("If", ["c"], ["z"], name="choice", then_branch=outer("outer"), else_branch=same)]


def loop(**attributes):
    graph = body("a", [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("carried")], "carried",
                 **attributes)
    graph.node.append(helper.make_node("Identity", ["go"], ["on"]))
    graph.output.insert(0, value("on", TensorProto.BOOL, []))
    return [helper.make_node("Loop", ["times", "", "x"], ["z"], name="choice", body=graph)]


def network(nodes, rng):
    """With a batch-norm of the main graph before, which folds."""
    weights = [*batchnorm_tensors(3, rng), *batchnorm_tensors(3, rng, "main"), tensor("w", rng.normal(size=(3, 3, 1, 1))),
               tensor("times", 2, np.int64), tensor("c", True, np.bool_)]
    before = [helper.make_node("Conv", ["input", "w"], ["conv"]), batchnorm_node("conv", "x", "main")]
    model = make_model(before + nodes, weights, {"input": SHAPE}, {"z": SHAPE})
    onnx.checker.check_model(model, full_check=True)
    return model


def account(crease, source, folded, left):
    """The entries about what lies in bodies; `left` of them."""
    found = crease.json("fold", source, "-o", folded)
    assert (found["batchnorms_before"], found["batchnorms_left"]) == (left + 1, left)
    kept = [e for e in found["entries"] if not e["folded"]]
    assert [e["code"] for e in kept] == ["in-subgraph"] * left
    text = crease("fold", source, "-o", folded).stdout
    assert f"1 of {left + 1} batch-norms folded, {left} left" in text and text.count("in-subgraph") == left
    for code in ("unfolded", "in-subgraph"):
        crease("fold", source, "-o", folded, "--fail-on", code, expect=FINDING)
    crease("fold", source, "-o", folded, "--fail-on", "training-mode")
    return kept


@pytest.mark.parametrize("nodes, left", [(branches, 2), (nested, 2), (loop, 1)])
def test_bodies(crease, rng, tmp_path, nodes, left):
    source, folded = save(network(nodes(), rng), tmp_path / "in.onnx"), str(tmp_path / "out.onnx")
    kept = account(crease, source, folded, left)
    assert sorted(e["node"] for e in kept) == ["a_y", "b_y"][:left] and all("'choice'" in e["target"] for e in kept)
    codes = [f["code"] for f in crease.json("lint", source, expect=FINDING)["findings"]]
    assert codes == ["unfolded"] * left


@pytest.mark.parametrize("nodes, left", [(branches, 2), (nested, 2), (loop, 1)])
def test_training_mode_in_bodies(crease, rng, tmp_path, nodes, left):
    source = save(network(nodes(training_mode=1), rng), tmp_path / "in.onnx")
    findings = crease.json("lint", source, expect=FINDING)["findings"]
    assert [f["code"] for f in findings] == ["training-mode", "unfolded"] * left
    assert not any(f["fixable"] for f in findings)


def test_functions(crease, rng, tmp_path):
    parameters = [f"bn_{part}" for part in ("gamma", "beta", "mean", "var")]
    function = helper.make_function("local", "Block", ["x", *parameters], ["y"], [batchnorm_node("x", "y")],
                                    [helper.make_opsetid("", 17)])
    model = network([helper.make_node("Relu", ["x"], ["z"])], rng)
    model.graph.node[-1].CopyFrom(helper.make_node("Block", ["x", *parameters], ["z"], domain="local"))
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("local", 1))
    onnx.checker.check_model(model)
    source, folded = save(model, tmp_path / "in.onnx"), str(tmp_path / "out.onnx")
    assert [e["target"] for e in account(crease, source, folded, 1)] == ["function 'Block'"]
