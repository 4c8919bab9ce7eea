# SPDX-License-Identifier: Apache-2.0
"""`crease recalibrate` of files that fix their batch: another one only where that is the same computation."""
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from helpers import (BAD_INPUT, batch_statistics, batchnorm_node, batchnorm_tensors, make_model, save, single_norm,
                     statistics_of, tensor)


def test_file_with_a_fixed_batch_takes_larger_ones(crease, rng, tmp_path):
    path = save(single_norm(rng, shape=(1, 3, 1, 2)), tmp_path / "m.onnx")
    x = rng.standard_normal((64, 3, 1, 2)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    report = crease.json("recalibrate", path, "--data", tmp_path / "x.npz", "-o", tmp_path / "out.onnx")
    assert (report["batches"], report["batch_size"]) == (2, 32)
    shape = [d.dim_value for d in onnx.load(tmp_path / "out.onnx").graph.input[0].type.tensor_type.shape.dim]
    assert shape == [1, 3, 1, 2], "the file's own shapes stay"


def reshaped(rng, batch, shape, width=5, middle=()):
    """x (batch, 3, 4, width) -> ... -> Reshape -> BatchNormalization -> y."""
    nodes = [*middle, helper.make_node("Reshape", ["m" if middle else "x", "shape"], ["r"], name="the_reshape"),
             batchnorm_node("r", "y")]
    constants = [numpy_helper.from_array(np.array(shape, np.int64), "shape"), *batchnorm_tensors(3, rng)]
    return make_model(nodes, constants, {"x": [batch, 3, 4, width]}, {"y": ["a", 3, "b"]})


@pytest.mark.parametrize("width", [5, "W"])
@pytest.mark.parametrize("batch, shape", [(1, [1, 3, -1]), (4, [4, 3, -1]), (4, [4, 3, 20]), (4, [-1, 3, 80])])
def test_a_batch_in_the_constants_stays(crease, rng, tmp_path, batch, shape, width):
    """With another batch such a Reshape gives channels of several samples, or fails."""
    path = save(reshaped(rng, batch, shape, width), tmp_path / "m.onnx")
    x = (rng.standard_normal((50, 3, 4, 5)) + np.arange(3).reshape(3, 1, 1)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    report = crease.json("recalibrate", path, "--data", tmp_path / "x.npz", "-o", tmp_path / "out.onnx")
    assert (report["batch_size"], report["batches"], report["left_out"]) == (batch, 50 // batch, 50 % batch)
    assert "the_reshape" in report["why_files_batch"]
    rows = x[:50 - 50 % batch].reshape(-1, batch, 3, 4, 5)
    if shape == [-1, 3, 80]:  # by the file itself, the network joins its 4 samples
        rows = rows.reshape(-1, 1, 3, 80)
    want = [batch_statistics(b) for b in rows]
    got_mean, got_var = statistics_of(tmp_path / "out.onnx")["bn_node"]
    np.testing.assert_allclose(got_mean, np.mean([b[0] for b in want], 0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got_var, np.mean([b[1] for b in want], 0), rtol=1e-5)
    done = crease("recalibrate", path, "--data", tmp_path / "x.npz", "--batch-size", 8, "-o", tmp_path / "no.onnx",
                  expect=BAD_INPUT)
    for word in ("the_reshape", f"fixes its batch to {batch}", "batches of 8", "dynamic batch"):
        assert word in done.stderr
    assert not (tmp_path / "no.onnx").exists()
    crease("recalibrate", path, "--data", tmp_path / "x.npz", "--batch-size", batch, "-o", tmp_path / "own.onnx")


def test_fewer_samples_than_a_fixed_batch(crease, rng, tmp_path):
    np.savez(tmp_path / "x.npz", x=rng.standard_normal((50, 3, 4, 5)).astype(np.float32))
    done = crease("recalibrate", save(reshaped(rng, 64, [64, 3, 20]), tmp_path / "m.onnx"), "--data", tmp_path / "x.npz",
                  "-o", tmp_path / "out.onnx", expect=BAD_INPUT)
    assert "the_reshape" in done.stderr and "give batches of 64" in done.stderr
    report = crease.json("recalibrate", save(reshaped(rng, 64, [0, 3, 20]), tmp_path / "m.onnx"), "--data",
                         tmp_path / "x.npz", "-o", tmp_path / "out.onnx")
    assert (report["batch_size"], report["batches"], report["left_out"]) == (32, 1, 18)


@pytest.mark.parametrize("node, extra, sound", [
    (helper.make_node("Softmax", ["x"], ["m"], name="it", axis=0), [], False),
    (helper.make_node("Softmax", ["x"], ["m"], name="it", axis=-4), [], False),
    (helper.make_node("Softmax", ["x"], ["m"], name="it"), [], True),
    (helper.make_node("LpNormalization", ["x"], ["m"], name="it", axis=0), [], False),
    (helper.make_node("LayerNormalization", ["x", "one"], ["m"], name="it", axis=0), [tensor("one", 1)], False),
    (helper.make_node("CumSum", ["x", "axis"], ["m"], name="it"), [tensor("axis", 0, np.int64)], False),
    (helper.make_node("CumSum", ["x", "axis"], ["m"], name="it"), [tensor("axis", 2, np.int64)], True),
    (helper.make_node("Slice", ["x", "from", "to", "axes", "step"], ["m"], name="it"),
     [tensor(k, [v], np.int64) for k, v in (("from", -1), ("to", -100), ("axes", 0), ("step", -1))], False),
    (helper.make_node("ReduceMean", ["x"], ["m"], name="it", axes=[0]), [], False),
], ids=lambda p: p.op_type if isinstance(p, onnx.NodeProto) else "")
def test_operators_along_a_fixed_batch(crease, rng, tmp_path, node, extra, sound):
    model = reshaped(rng, 2, [0, 3, 20], middle=[node])
    model.graph.initializer.extend(extra)
    np.savez(tmp_path / "x.npz", x=rng.standard_normal((32, 3, 4, 5)).astype(np.float32))
    done = crease.json("recalibrate", save(model, tmp_path / "m.onnx"), "--data", tmp_path / "x.npz", "-o",
                       tmp_path / "out.onnx")
    assert done["batch_size"] == (32 if sound else 2)
    assert ("'it'" in done["why_files_batch"]) == (not sound)


def test_inputs_of_different_fixed_batches(crease, rng, tmp_path):
    model = make_model([helper.make_node("Add", ["x", "k"], ["s"]), batchnorm_node("s", "y")], batchnorm_tensors(3, rng),
                       {"x": [2, 3, 4, 5], "k": [3, 1, 1]}, {"y": [2, 3, 4, 5]})
    np.savez(tmp_path / "x.npz", x=np.zeros((4, 3, 4, 5), np.float32), k=np.zeros((4, 1, 1), np.float32))
    done = crease("recalibrate", save(model, tmp_path / "m.onnx"), "--data", tmp_path / "x.npz", "-o", tmp_path / "out.onnx",
                  expect=BAD_INPUT)
    assert "input 'k'" in done.stderr and "fixed to 3, that of another input to 2" in done.stderr


def test_a_fixed_batch_that_is_too_small_is_refused(crease, rng, tmp_path):
    model = reshaped(rng, 1, [1, 3, 1], middle=[helper.make_node("GlobalAveragePool", ["x"], ["m"])])
    np.savez(tmp_path / "x.npz", x=rng.standard_normal((30, 3, 4, 5)).astype(np.float32))
    done = crease("recalibrate", save(model, tmp_path / "m.onnx"), "--data", tmp_path / "x.npz", "-o", tmp_path / "out.onnx",
                  expect=BAD_INPUT)
    for word in ("bn_node", "1 samples", "at least 4", "the_reshape", "dynamic batch"):
        assert word in done.stderr
    assert "--batch-size" not in done.stderr, "it could not help"


def with_factor(rng, nodes, constants, inputs=()):
    """x (1, 3, 4, 5) -> Mul by k, which `nodes` make -> BatchNormalization -> y."""
    nodes = [*nodes, helper.make_node("Mul", ["x", "k"], ["m"], name="the_product"), batchnorm_node("m", "y")]
    return make_model(nodes, [*constants, *batchnorm_tensors(3, rng)], {"x": [1, 3, 4, 5], **dict(inputs)},
                      {"y": ["a", 3, "b", "c"]})


def test_a_constant_of_the_datas_type_has_no_batch(crease, rng, tmp_path):
    model = with_factor(rng, [helper.make_node("CastLike", ["two", "x"], ["k"])],
                        [numpy_helper.from_array(np.float64(2), "two")])
    np.savez(tmp_path / "x.npz", x=rng.standard_normal((64, 3, 4, 5)).astype(np.float32))
    report = crease.json("recalibrate", save(model, tmp_path / "m.onnx"), "--data", tmp_path / "x.npz", "-o",
                         tmp_path / "out.onnx")
    assert (report["batches"], report["batch_size"]) == (2, 32)


def test_a_factor_that_is_the_batchs_size(crease, rng, tmp_path):
    nodes = [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Gather", ["s", "zero"], ["n"]),
             helper.make_node("Cast", ["n"], ["k"], to=onnx.TensorProto.FLOAT)]
    model = with_factor(rng, nodes, [numpy_helper.from_array(np.int64(0), "zero")])
    np.savez(tmp_path / "x.npz", x=rng.standard_normal((64, 3, 4, 5)).astype(np.float32))
    report = crease.json("recalibrate", save(model, tmp_path / "m.onnx"), "--data", tmp_path / "x.npz", "-o",
                         tmp_path / "out.onnx")
    assert report["batch_size"] == 1 and "the_product" in report["why_files_batch"], report


def test_a_dropout_whose_mode_is_an_input(crease, rng, tmp_path):
    nodes = [helper.make_node("Dropout", ["x", "ratio", "mode"], ["d"]), batchnorm_node("d", "y")]
    model = make_model(nodes, [numpy_helper.from_array(np.float32(0.5), "ratio"), *batchnorm_tensors(3, rng)],
                       {"x": ["n", 3, 4, 5]}, {"y": ["n", 3, 4, 5]})
    model.graph.input.append(helper.make_tensor_value_info("mode", onnx.TensorProto.BOOL, []))
    np.savez(tmp_path / "x.npz", x=rng.standard_normal((64, 3, 4, 5)).astype(np.float32))
    report = crease.json("recalibrate", save(model, tmp_path / "m.onnx"), "--data", tmp_path / "x.npz", "-o",
                         tmp_path / "out.onnx")
    assert report["batches"] == 2
