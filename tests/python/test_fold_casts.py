# SPDX-License-Identifier: Apache-2.0
"""Maps beside a Cast to or from float16, judged by ONNX Runtime: the file that is folded, and what `crease run` makes of it."""
import numpy as np
import pytest
from onnx import TensorProto, helper

from helpers import judge, make_model, relative_error, save, tensor

HALF_NOISE = 3e-3  # of float16's own rounding, in standard deviations


def node(op, inputs, output, **attributes):
    return helper.make_node(op, inputs.split(), [output], **attributes)


def to(x, y, dtype):
    return node("Cast", x, y, to=dtype)


def half_weights():
    return tensor("w", np.random.default_rng(0).normal(0, 0.3, (4, 3, 3, 3)), np.float16)


def statistics(mean, deviation, channels):
    return [tensor("s", np.ones(channels)), tensor("b", np.zeros(channels)), tensor("m", np.full(channels, mean)),
            tensor("v", np.full(channels, deviation ** 2.0))]


def image_of_16_bits(rng):
    """Values of 0 to 65535, divided in float32: as they are, the largest is no float16."""
    nodes = [node("Div", "x k", "a"), to("a", "h", TensorProto.FLOAT16), node("Conv", "h w", "c"), to("c", "y", TensorProto.FLOAT)]
    return nodes, [half_weights(), tensor("k", 257.0)], rng.choice([0, 40000, 65535], (1, 3, 16, 16))


def far_from_zero(rng):
    """Standardised in float32: as it is, a value is rounded to 0.16 standard deviations."""
    nodes = [node("BatchNormalization", "x s b m v", "a"), to("a", "h", TensorProto.FLOAT16), node("Conv", "h w", "c"),
             to("c", "y", TensorProto.FLOAT)]
    return nodes, [half_weights(), *statistics(30000, 100, 3)], rng.normal(30000, 100, (1, 3, 16, 16))


def result_in_kelvin(rng):
    """A float32 result with an offset: in float16 it would be rounded to 1/4."""
    nodes = [to("x", "h", TensorProto.FLOAT16), node("Conv", "h w", "c"), to("c", "d", TensorProto.FLOAT), node("Mul", "d k", "e"),
             node("Add", "e o", "y")]
    return nodes, [half_weights(), tensor("k", 10.0), tensor("o", 300.0)], rng.normal(0, 1, (1, 3, 16, 16))


def rounded_before_the_map(rng):
    """float32 weights, but the map is of what float16 has left of their sums: nothing of 1e-9."""
    nodes = [node("Conv", "x w", "c"), to("c", "h", TensorProto.FLOAT16), to("h", "d", TensorProto.FLOAT), node("Mul", "d k", "y")]
    weights = tensor("w", np.random.default_rng(0).normal(0, 1e-7, (4, 3, 3, 3)))
    return nodes, [weights, tensor("k", 1e7)], rng.normal(0, 1, (1, 3, 16, 16))


@pytest.mark.parametrize("case", [image_of_16_bits, far_from_zero, result_in_kelvin, rounded_before_the_map])
def test_kept_where_another_value_would_be_rounded(crease, rng, tmp_path, case):
    nodes, weights, x = case(rng)
    source = save(make_model(nodes, weights, {"x": list(x.shape)}, {"y": None}), tmp_path / "in.onnx")
    feeds = {"x": x.astype(np.float32)}
    want = judge(source, feeds)["y"]
    assert np.isfinite(want).all()
    assert relative_error(judge(crease.fold(source, str(tmp_path / "out.onnx"), "--verify"), feeds)["y"], want) == 0
    assert relative_error(crease.run(source, feeds)["y"], want) <= HALF_NOISE


def test_batch_norm_in_float32_amid_float16_folds(crease, rng, tmp_path):
    nodes = [to("x", "h", TensorProto.FLOAT16), node("Conv", "h w", "c"), to("c", "d", TensorProto.FLOAT),
             node("BatchNormalization", "d s b m v", "n"), to("n", "r", TensorProto.FLOAT16), to("r", "y", TensorProto.FLOAT)]
    model = make_model(nodes, [half_weights(), *statistics(0.3, 2, 4)], {"x": [1, 3, 16, 16]}, {"y": None})
    source = save(model, tmp_path / "in.onnx")
    feeds = {"x": rng.normal(0, 1, (1, 3, 16, 16)).astype(np.float32)}
    folded = crease.fold(source, str(tmp_path / "out.onnx"), "--fail-on", "unfolded")
    assert relative_error(judge(folded, feeds)["y"], judge(source, feeds)["y"]) <= 2 * HALF_NOISE
