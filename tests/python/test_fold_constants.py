# SPDX-License-Identifier: Apache-2.0
"""Constants that nodes make, judged by ONNX Runtime: each is rounded to its type before the next node reads it."""
import numpy as np
import pytest
from onnx import helper

from helpers import batchnorm_tensors, judge, make_model, relative_error, save, tensor


def node(op, inputs, output, **attributes):
    return helper.make_node(op, inputs.split(), [output], **attributes)


# 10f * 0.7f is 7 in float32 and 6.9999999 exactly; 10f * 0.3f is 3, and 3.0000001.
AT_SEVEN, AT_THREE = node("Mul", "ten point7", "t"), node("Mul", "ten point3", "t")
CONSTANTS = [tensor("ten", 10.0), tensor("point7", 0.7), tensor("point3", 0.3), tensor("seven", 7.0), tensor("one", 1.0),
             tensor("zero", 0.0), tensor("half3", 1.5)]
CASES = {
    "floor": [AT_SEVEN, node("Floor", "t", "k")],
    "ceil": [AT_THREE, node("Ceil", "t", "k")],
    "round": [AT_SEVEN, node("Sub", "t half3", "u"), node("Round", "u", "k")],
    "cast": [AT_SEVEN, node("Cast", "t", "i", to=7), node("Cast", "i", "k", to=1)],
    "equal": [AT_SEVEN, node("Equal", "t seven", "e"), node("Where", "e ten one", "k")],
    "less": [AT_SEVEN, node("Less", "t seven", "e"), node("Where", "e ten one", "k")],
    "mod": [AT_SEVEN, node("Mod", "t seven", "u", fmod=1), node("Add", "u one", "k")],
    "range": [AT_THREE, node("Range", "zero t one", "r"), node("ReduceSum", "r", "k")],
}


@pytest.mark.parametrize("name", CASES)
def test_discontinuous_operators_see_rounded_values(crease, rng, tmp_path, name):
    nodes = CASES[name] + [node("Mul", "x k", "s"), node("Conv", "s w", "c"),
                           node("BatchNormalization", "c bn_gamma bn_beta bn_mean bn_var", "n"), node("Relu", "n", "y")]
    weights = CONSTANTS + [tensor("w", rng.normal(0, 1, (4, 3, 1, 1)))] + batchnorm_tensors(4, rng)
    source = save(make_model(nodes, weights, {"x": ["N", 3, 5, 5]}, {"y": ["N", 4, 5, 5]}), tmp_path / "in.onnx")
    feeds = {"x": rng.normal(0, 1, (2, 3, 5, 5)).astype(np.float32)}
    want = judge(source, feeds)["y"]
    folded = crease.fold(source, str(tmp_path / "out.onnx"), "--verify", "--fail-on", "unfolded")
    assert relative_error(judge(folded, feeds)["y"], want) <= 1e-5
    for flags in ([], ["--no-fold"]):
        assert relative_error(crease.run(source, feeds, *flags)["y"], want) <= 1e-5


@pytest.mark.parametrize("extent", [10, "H"])
def test_sizes_from_shapes_and_scales(crease, rng, tmp_path, extent):
    """floor(height * 0.7), as exporters write a Resize's sizes."""
    nodes = [node("Conv", "x w", "c"), node("BatchNormalization", "c bn_gamma bn_beta bn_mean bn_var", "n"),
             node("Shape", "x", "shape"), node("Gather", "shape two", "h"), node("Cast", "h", "ten", to=1), AT_SEVEN,
             node("Floor", "t", "f"), node("Cast", "f", "i", to=7), node("Concat", "front i i", "sizes", axis=0),
             helper.make_node("Resize", ["n", "", "", "sizes"], ["y"], mode="linear")]
    weights = [tensor("point7", 0.7), tensor("two", [2], np.int64), tensor("front", [1, 2], np.int64),
               tensor("w", rng.normal(0, 1, (2, 3, 1, 1)))] + batchnorm_tensors(2, rng)
    source = save(make_model(nodes, weights, {"x": [1, 3, extent, extent]}, {"y": [1, 2, "h", "w"]}), tmp_path / "in.onnx")
    feeds = {"x": rng.normal(0, 1, (1, 3, 10, 10)).astype(np.float32)}
    np.savez(tmp_path / "x.npz", **feeds)
    want = judge(source, feeds)["y"]
    assert want.shape[2:] == (7, 7)
    folded = crease.fold(source, str(tmp_path / "out.onnx"), "--verify", "--input", str(tmp_path / "x.npz"))
    assert relative_error(judge(folded, feeds)["y"], want) <= 1e-5
    for flags in ([], ["--no-fold"]):
        assert relative_error(crease.run(source, feeds, *flags)["y"], want) <= 1e-5
