# SPDX-License-Identifier: Apache-2.0
"""What exporters write around a batch-norm, judged by ONNX Runtime: readers of its value that look at no element, biases that
are cast like the image, weights that are dequantized."""
import numpy as np
import pytest
from onnx import TensorProto, helper

from helpers import batchnorm_tensors, judge, make_model, relative_error, save, tensor


def node(op, inputs, output, **attributes):
    return helper.make_node(op, inputs.split(), [output], **attributes)


def norm(x, y):
    return node("BatchNormalization", f"{x} bn_gamma bn_beta bn_mean bn_var", y)


def check_folds(crease, tmp_path, model, feeds, tolerance=1e-5):
    """Nothing stays unfolded, and ONNX Runtime and `crease run` say the same of both."""
    source = save(model, tmp_path / "in.onnx")
    want = judge(source, feeds)["y"]
    folded = crease.fold(source, str(tmp_path / "out.onnx"), "--fail-on", "unfolded")
    assert relative_error(judge(folded, feeds)["y"], want) <= tolerance
    return source, want


def check_runs(crease, source, feeds, want):
    for flags in ([], ["--no-fold"]):
        assert relative_error(crease.run(source, feeds, *flags)["y"], want) <= 1e-5


@pytest.mark.parametrize("batch", [2, "N"])
def test_shape_of_what_is_flattened(crease, rng, tmp_path, batch):
    """Linear, batch-norm over the flattened rows, and back."""
    nodes = [node("MatMul", "x w", "a"), node("Shape", "a", "s"), node("Reshape", "a r", "f"), norm("f", "n"),
             node("Reshape", "n s", "y")]
    weights = [tensor("w", rng.normal(0, 1, (5, 6))), tensor("r", [-1, 6], np.int64)] + batchnorm_tensors(6, rng)
    feeds = {"x": rng.normal(0, 1, (2, 7, 5)).astype(np.float32)}
    model = make_model(nodes, weights, {"x": [batch, 7, 5]}, {"y": [batch, 7, 6]})
    source, want = check_folds(crease, tmp_path, model, feeds)
    check_runs(crease, source, feeds, want)


@pytest.mark.parametrize("reads", ["c", "n"])
def test_shape_of_what_is_normalized(crease, rng, tmp_path, reads):
    """Upsampled to twice the size of the map's input, or of its result."""
    nodes = [node("Conv", "x w", "c"), norm("c", "n"), node("Shape", reads, "s"), node("Mul", "s by", "t"),
             helper.make_node("Resize", ["n", "", "", "t"], ["u"], mode="nearest"), node("Relu", "u", "y")]
    weights = [tensor("w", rng.normal(0, 1, (4, 3, 3, 3))), tensor("by", [1, 1, 2, 2], np.int64)] + batchnorm_tensors(4, rng)
    feeds = {"x": rng.normal(0, 1, (2, 3, 8, 8)).astype(np.float32)}
    model = make_model(nodes, weights, {"x": ["N", 3, "H", "W"]}, {"y": ["N", 4, "h", "w"]})
    source, want = check_folds(crease, tmp_path, model, feeds)
    check_runs(crease, source, feeds, want)


def test_bias_cast_like_the_image(crease, rng, tmp_path):
    """torch.onnx.export(dynamo=True, optimize=False) writes this for a convolution without a bias."""
    nodes = [node("Shape", "w", "s", start=0, end=1), node("CastLike", "zero x", "z"), node("Expand", "z s", "b"),
             node("Conv", "x w b", "c"), norm("c", "n"), node("Relu", "n", "y")]
    weights = [tensor("w", rng.normal(0, 1, (4, 3, 3, 3))), tensor("zero", 0, np.int64)] + batchnorm_tensors(4, rng)
    feeds = {"x": rng.normal(0, 1, (2, 3, 8, 8)).astype(np.float32)}
    model = make_model(nodes, weights, {"x": ["N", 3, 8, 8]}, {"y": ["N", 4, 6, 6]}, opset=18)
    source, want = check_folds(crease, tmp_path, model, feeds)
    check_runs(crease, source, feeds, want)


@pytest.mark.parametrize("of_scale", [np.float16, np.float32])
def test_dequantized_to_another_type_than_the_scale(crease, rng, tmp_path, of_scale):
    """The new bias is of the convolution's type, and the folded scale is as exact as that."""
    nodes = [node("DequantizeLinear", "q q_scale", "w", axis=0, output_dtype=TensorProto.FLOAT), node("Conv", "x w", "c"),
             norm("c", "n"), node("Relu", "n", "y")]
    weights = [tensor("q", rng.integers(-127, 127, (6, 3, 3, 3)), np.int8),
               tensor("q_scale", rng.uniform(0.001, 0.01, 6), of_scale)] + batchnorm_tensors(6, rng)
    model = make_model(nodes, weights, {"x": ["N", 3, 8, 8]}, {"y": ["N", 6, 6, 6]}, opset=23, ir_version=11)
    check_folds(crease, tmp_path, model, {"x": rng.normal(0, 1, (2, 3, 8, 8)).astype(np.float32)})
