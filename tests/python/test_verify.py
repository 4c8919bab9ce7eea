# SPDX-License-Identifier: Apache-2.0
"""`crease fold --verify` and `crease diff`: rounding passes in every type, an error in none."""
import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from helpers import (BAD_INPUT, FINDING, USAGE, batchnorm_node, batchnorm_tensors, conv_bn_relu, make_model, save,
                     tensor)

TYPES = {"f16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def constant(name, values, dtype):
    values = np.asarray(values)
    return helper.make_tensor(name, dtype, values.shape, values.ravel().tolist())


def residual_network(rng, layers, dtype, wrong=None):
    """Convolution, batch-norm, addition of what was before, rectifier; `wrong` adds that to one beta of the last layer."""
    channels, nodes, weights = 8, [], []
    for i in range(layers):
        put = lambda name, values: weights.append(constant(f"{name}{i}", values, dtype))
        put("w", rng.normal(0, 0.12, (channels, channels, 3, 3)))
        beta = rng.normal(0, 0.2, channels)
        if wrong is not None and i + 1 == layers:
            beta[0] += wrong
        put("s", rng.uniform(0.2, 0.4, channels))
        put("b", beta)
        put("m", rng.normal(0, 0.5, channels))
        put("v", rng.uniform(0.5, 2, channels))
        x = f"r{i - 1}" if i else "x"
        nodes += [helper.make_node("Conv", [x, f"w{i}"], [f"c{i}"], pads=[1, 1, 1, 1]),
                  helper.make_node("BatchNormalization", [f"c{i}", *(f"{p}{i}" for p in "sbmv")], [f"n{i}"]),
                  helper.make_node("Add", [f"n{i}", x], [f"a{i}"]), helper.make_node("Relu", [f"a{i}"], [f"r{i}"])]
    value = lambda name: helper.make_tensor_value_info(name, dtype, [1, channels, 12, 12])
    graph = helper.make_graph(nodes, "g", [value("x")], [value(f"r{layers - 1}")], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("layers", [1, 3, 9])
def test_half_types(crease, tmp_path, dtype, layers):
    for seed in range(5):
        make = lambda wrong=None: residual_network(np.random.default_rng(seed), layers, TYPES[dtype], wrong)
        source, folded = save(make(), tmp_path / "in.onnx"), str(tmp_path / "out.onnx")
        found = crease.json("fold", source, "-o", folded, "--verify")
        assert found["batchnorms_left"] == 0
        assert all(v["outputs"][0]["max_error_std"] > 0 for v in found["verify"])
        wrong = crease.fold(save(make(3.0), tmp_path / "wrong.onnx"), str(tmp_path / "wrong_folded.onnx"))
        crease("diff", source, folded)
        crease("diff", source, wrong, expect=FINDING)
        crease("fold", source, "-o", folded, "--verify", "--tolerance", "1e-6", expect=FINDING)


def one_number(weight):
    """An output that is the same number everywhere, whatever the input."""
    nodes = [helper.make_node("Clip", ["x", "zero", "zero"], ["r"]), helper.make_node("Conv", ["r", "w"], ["c"]),
             helper.make_node("BatchNormalization", ["c", *"sbmv"], ["z"])]
    values = {"w": [[[[0.3]]]], "s": [0.9], "b": [weight], "m": [0.456], "v": [1.3], "zero": 0.0}
    weights = [tensor(name, value) for name, value in values.items()]
    return make_model(nodes, weights, {"x": [3, 1, 3, 3]}, {"z": None})


def test_an_output_of_one_number(crease, tmp_path):
    source, folded = save(one_number(0.41), tmp_path / "in.onnx"), str(tmp_path / "out.onnx")
    crease("fold", source, "-o", folded, "--verify", "--fail-on", "unfolded")
    crease("diff", source, folded)
    crease("diff", source, save(one_number(0.42), tmp_path / "other.onnx"), expect=FINDING)


def test_values_that_are_not_finite_are_counted(crease, rng, tmp_path):
    """Equal in both networks they are no error, but nothing was compared there."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("BatchNormalization", ["c", *"sbmv"], ["n"]),
             helper.make_node("Sqrt", ["n"], ["z"])]
    weights = [tensor("w", rng.normal(size=(4, 3, 1, 1))), *(tensor(n, rng.uniform(0.5, 1.5, 4)) for n in "sbmv")]
    source = save(make_model(nodes, weights, {"x": [1, 3, 8, 8]}, {"z": None}), tmp_path / "in.onnx")
    found = crease.json("fold", source, "-o", str(tmp_path / "out.onnx"), "--verify")
    counts = {v["outputs"][0]["not_finite"] for v in found["verify"]}
    assert len(counts) == 1 and 0 < counts.pop() < 4 * 8 * 8
    assert "values are NaN or infinite" in crease("fold", source, "-o", str(tmp_path / "out.onnx"), "--verify").stdout


@pytest.mark.parametrize("tolerance", ["nan", "inf", "-1", "much"])
@pytest.mark.parametrize("command", ["fold", "diff"])
def test_tolerances_that_are_none(crease, rng, tmp_path, command, tolerance):
    source = save(conv_bn_relu(rng), tmp_path / "in.onnx")
    arguments = ["-o", str(tmp_path / "out.onnx"), "--verify"] if command == "fold" else [source]
    assert "finite number" in crease(command, source, *arguments, "--tolerance", tolerance, expect=USAGE).stderr


@pytest.mark.parametrize("command", ["fold", "diff"])
def test_nothing_to_compare_on(crease, rng, tmp_path, command):
    source = save(conv_bn_relu(rng), tmp_path / "in.onnx")
    np.savez(tmp_path / "x.npz", x=np.zeros((0, 3, 9, 8), np.float32))
    arguments = ["-o", str(tmp_path / "out.onnx"), "--verify"] if command == "fold" else [source]
    done = crease(command, source, *arguments, "--input", str(tmp_path / "x.npz"), expect=BAD_INPUT)
    assert "no output has elements" in done.stderr


@pytest.mark.parametrize("first", ["free", "fixed"])
def test_sizes_that_one_of_two_fixes(crease, rng, tmp_path, first):
    free = conv_bn_relu(rng)
    free.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"
    free.graph.output[0].type.tensor_type.shape.dim[2].dim_param = "H"
    fixed = onnx.ModelProto.FromString(free.SerializeToString())
    for value in (fixed.graph.input[0], fixed.graph.output[0]):
        for axis, size in ((0, 2), (2, 9)):
            value.type.tensor_type.shape.dim[axis].dim_value = size
    paths = [save(free, tmp_path / "free.onnx"), save(fixed, tmp_path / "fixed.onnx")]
    done = crease("diff", *(paths if first == "free" else reversed(paths)))
    assert re.search(r"float64 seed 1: output 'y' differs by 0", done.stdout)


def test_an_outlier_hides_no_error(crease, rng, tmp_path):
    """The unit of an element does not grow with another element."""
    model = conv_bn_relu(rng)
    other = onnx.ModelProto.FromString(model.SerializeToString())
    beta = next(t for t in other.graph.initializer if t.name == "bn_beta")
    beta.CopyFrom(tensor("bn_beta", onnx.numpy_helper.to_array(beta) + 0.05))
    x = rng.normal(size=(1, 3, 9, 8)).astype(np.float32)
    x[0, 0, 4, 4] = 300
    np.savez(tmp_path / "x.npz", x=x)
    paths = [save(model, tmp_path / "a.onnx"), save(other, tmp_path / "b.onnx")]
    crease("diff", *paths, "--input", str(tmp_path / "x.npz"), expect=FINDING)


def test_one_symbol_is_one_size(crease, tmp_path):
    """That of a batch, where it is a first axis anywhere."""
    nodes = [helper.make_node("MatMul", ["a", "b"], ["c"]), helper.make_node("Reshape", ["c", "k"], ["d"]),
             helper.make_node("Conv", ["d", "w"], ["e"]), batchnorm_node("e", "z")]
    rng = np.random.default_rng(0)
    weights = [tensor("k", [1, 4, -1], np.int64), tensor("w", rng.normal(size=(3, 4, 1))), *batchnorm_tensors(3, rng)]
    model = make_model(nodes, weights, {"a": [8, "t"], "b": ["t", 8]}, {"z": [1, 3, 16]})
    source, folded = save(model, tmp_path / "in.onnx"), str(tmp_path / "out.onnx")
    assert crease.json("fold", source, "-o", folded, "--verify")["batchnorms_left"] == 0
    crease("diff", source, folded)
    crease("inspect", source)
    crease("bench", source, "--seconds", "0.01")


def pyramid(levels):
    """Needs 2**levels pixels: each level has half of those before."""
    rng = np.random.default_rng(0)
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), batchnorm_node("c", "p0")]
    nodes += [helper.make_node("AveragePool", [f"p{i}"], [f"p{i + 1}"], kernel_shape=[2, 2], strides=[2, 2])
              for i in range(levels)]
    weights = [tensor("w", rng.normal(size=(3, 3, 1, 1))), *batchnorm_tensors(3, rng)]
    shape = ["N", 3, "H", "W"]
    return make_model(nodes, weights, {"x": shape}, {f"p{levels}": ["N", 3, "h", "w"]})


def test_networks_that_need_more_pixels(crease, tmp_path):
    source, folded = save(pyramid(7), tmp_path / "in.onnx"), str(tmp_path / "out.onnx")
    found = crease.json("fold", source, "-o", folded, "--verify")
    assert [v["ok"] for v in found["verify"]] == [True, True]
    crease("diff", source, folded)
    crease("bench", save(pyramid(8), tmp_path / "in8.onnx"), "--seconds", "0.01")


def test_networks_that_no_size_fits(crease, tmp_path):
    source, folded = save(pyramid(9), tmp_path / "in.onnx"), str(tmp_path / "out.onnx")
    crease.fold(source, folded)
    for command in (["fold", source, "-o", folded, "--verify"], ["diff", source, folded]):
        error = crease(*command, expect=BAD_INPUT).stderr
        assert "64, 128, 224, 256" in error and "--input" in error, error
    np.savez(tmp_path / "x.npz", x=np.ones((1, 3, 512, 512), np.float32))
    crease("diff", source, folded, "--input", tmp_path / "x.npz")
    error = crease("bench", source, expect=BAD_INPUT).stderr
    assert "224, 256, 128, 64" in error and "--input" not in error, error
