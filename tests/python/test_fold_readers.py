# SPDX-License-Identifier: Apache-2.0
"""What exporters write around a batch-norm, judged by ONNX Runtime: readers of its value that look at no element, biases that
are cast like the image, weights that are dequantized, channels that are cut apart."""
import numpy as np
import pytest
from onnx import TensorProto, helper

from helpers import FINDING, batchnorm_tensors, judge, make_model, relative_error, save, tensor


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


@pytest.mark.parametrize("zero_point", [0, None])
@pytest.mark.parametrize("bias_scale", ["one", "a vector of one", "each"])
def test_dequantized_bias_and_zero_point_of_zero(crease, rng, tmp_path, zero_point, bias_scale):
    """What ONNX Runtime's quantizer writes: one scale for all weights, a zero point of 0, an int32 bias."""
    nodes = [node("DequantizeLinear", "q q_scale" + (" q_zero" if zero_point == 0 else ""), "w"),
             node("DequantizeLinear", "i i_scale", "b", axis=0), node("Conv", "x w b", "c"), norm("c", "n"),
             node("Relu", "n", "y")]
    weights = [tensor("q", rng.integers(-127, 127, (6, 3, 3, 3)), np.int8), tensor("q_scale", 0.01),
               tensor("q_zero", 0, np.int8), tensor("i", [-900, 20000000, 16777217, 3, 0, 77], np.int32),
               tensor("i_scale", {"one": 1e-4, "a vector of one": [1e-4]}.get(bias_scale, rng.uniform(1e-4, 2e-4, 6)))]
    if zero_point is None:
        weights = [t for t in weights if t.name != "q_zero"]
    model = make_model(nodes, weights + batchnorm_tensors(6, rng), {"x": ["N", 3, 8, 8]}, {"y": ["N", 6, 6, 6]})
    check_folds(crease, tmp_path, model, {"x": rng.normal(0, 1, (2, 3, 8, 8)).astype(np.float32)})


def test_one_zero_point_that_is_not_zero_keeps_the_map(crease, rng, tmp_path):
    nodes = [node("DequantizeLinear", "q q_scale q_zero", "w"), node("Conv", "x w", "c"), norm("c", "y")]
    weights = [tensor("q", rng.integers(-127, 127, (6, 3, 3, 3)), np.int8), tensor("q_scale", 0.01), tensor("q_zero", 5, np.int8)]
    model = make_model(nodes, weights + batchnorm_tensors(6, rng), {"x": ["N", 3, 8, 8]}, {"y": ["N", 6, 6, 6]})
    crease("fold", save(model, tmp_path / "in.onnx"), "-o", tmp_path / "out.onnx", "--fail-on", "quantized-weights", expect=FINDING)


def test_channels_cut_apart_and_picked(crease, rng, tmp_path):
    """Two Slices of one convolution's channels with a batch-norm each, joined and reordered before a third."""
    nodes = [node("Conv", "x w", "c"), node("Slice", "c zero two one", "c1"), node("Slice", "c two six one", "c2"),
             node("BatchNormalization", "c1 p_gamma p_beta p_mean p_var", "n1"),
             node("BatchNormalization", "c2 q_gamma q_beta q_mean q_var", "n2"), node("Concat", "n2 n1", "j", axis=1),
             node("Gather", "j order", "g", axis=1), norm("g", "n"), node("Relu", "n", "y")]
    weights = [tensor("w", rng.normal(0, 1, (6, 3, 3, 3))), tensor("order", [3, 1, -6, 2, 5, 4], np.int64),
               *(tensor(name, [k], np.int64) for name, k in (("zero", 0), ("one", 1), ("two", 2), ("six", 6)))]
    weights += batchnorm_tensors(2, rng, "p") + batchnorm_tensors(4, rng, "q") + batchnorm_tensors(6, rng)
    feeds = {"x": rng.normal(0, 1, (2, 3, 8, 8)).astype(np.float32)}
    model = make_model(nodes, weights, {"x": ["N", 3, "H", "W"]}, {"y": ["N", 6, "h", "w"]})
    source, want = check_folds(crease, tmp_path, model, feeds)
    check_runs(crease, source, feeds, want)
