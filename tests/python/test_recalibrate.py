# SPDX-License-Identifier: Apache-2.0
"""`crease recalibrate`: running statistics measured anew."""
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from helpers import (BAD_INPUT, MODELS, USAGE, arrays_of, batch_statistics, batchnorm_node, batchnorm_tensors, conv_bn_relu,
                     count, is_training, judge, make_model, relative_error, save, single_norm, statistics_of, tensor)


@pytest.mark.parametrize("opset", [7, 9, 13, 14, 15, 17])
def test_cumulative_average_is_pytorchs(crease, rng, tmp_path, opset):
    model = single_norm(rng)
    model.opset_import[0].version = opset
    x = (rng.standard_normal((6, 3, 4, 5)) * [[[[2]], [[0.5]], [[7]]]] + 3).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    report = crease.json("recalibrate", save(model, tmp_path / "m.onnx"), "--data", tmp_path / "x.npz", "--batch-size", 2,
                         "-o", tmp_path / "out.onnx")
    assert (report["batches"], report["batch_size"], report["momentum"]) == (3, 2, None)
    assert report["nodes"][0]["samples"] == 40
    got_mean, got_var = statistics_of(tmp_path / "out.onnx")["bn_node"]
    batches = [batch_statistics(x[i:i + 2]) for i in (0, 2, 4)]
    np.testing.assert_allclose(got_mean, np.mean([b[0] for b in batches], 0), rtol=1e-6)
    np.testing.assert_allclose(got_var, np.mean([b[1] for b in batches], 0), rtol=1e-6)


def test_momentum_starts_from_the_stored_statistics(crease, rng, tmp_path):
    path = save(single_norm(rng), tmp_path / "m.onnx")
    x = rng.standard_normal((4, 3, 4, 5)).astype(np.float32)
    np.savez(tmp_path / "x.npz", anything=x)
    crease("recalibrate", path, "--data", tmp_path / "x.npz", "--momentum", 0.25, "-o", tmp_path / "out.onnx")
    (mean, var), (old_mean, old_var) = batch_statistics(x), statistics_of(path)["bn_node"]
    got_mean, got_var = statistics_of(tmp_path / "out.onnx")["bn_node"]
    np.testing.assert_allclose(got_mean, 0.75 * old_mean + 0.25 * mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got_var, 0.75 * old_var + 0.25 * var, rtol=1e-5)


def test_training_mode_becomes_inference(crease, rng, tmp_path):
    path = save(conv_bn_relu(rng, training_mode=1), tmp_path / "m.onnx")
    x = rng.standard_normal((32, 3, 9, 8)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    done = crease("recalibrate", path, "--data", tmp_path / "x.npz", "-o", tmp_path / "out.onnx")
    assert "training mode taken off" in done.stdout
    assert is_training(path) and not is_training(tmp_path / "out.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "out.onnx"), full_check=True)
    # One batch: what training mode computed, but for the unbiased variance, 2304 samples a channel.
    assert relative_error(judge(tmp_path / "out.onnx", {"x": x})["y"], crease.run(path, {"x": x})["y"]) < 5e-3
    folded = crease.fold(tmp_path / "out.onnx", tmp_path / "folded.onnx")
    assert count(folded, "BatchNormalization") == 0


@pytest.mark.parametrize("constant", ["initializer", "node", "identity"])
@pytest.mark.parametrize("opset", [12, 17])
def test_dropout_does_not_drop(crease, rng, tmp_path, constant, opset):
    """Between two batch-norms, as PyTorch exports it in training mode, and behind the last."""
    flag = numpy_helper.from_array(np.array(True), "training" if constant != "identity" else "stored")
    nodes = {"initializer": [], "node": [helper.make_node("Constant", [], ["training"], value=flag)],
             "identity": [helper.make_node("Identity", ["stored"], ["training"])]}[constant]
    nodes += [batchnorm_node("x", "a", prefix="first"),
              helper.make_node("Dropout", ["a", "ratio", "training"], ["b", "mask"], name="drop", doc_string="words"),
              batchnorm_node("b", "c", prefix="second"),
              helper.make_node("Dropout", ["c", "", "training"], ["y"], name="last")]
    constants = [*batchnorm_tensors(3, rng, "first"), *batchnorm_tensors(3, rng, "second"), tensor("ratio", 0.5)]
    model = make_model(nodes, constants + ([flag] if constant != "node" else []), {"x": ["N", 3, 4, 5]},
                       {"y": ["N", 3, 4, 5]}, opset=opset)
    x = rng.standard_normal((8, 3, 4, 5)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    path = save(model, tmp_path / "m.onnx")
    assert crease.json("recalibrate", path, "--data", tmp_path / "x.npz", "-o", tmp_path / "out.onnx")["dropouts"] == 2
    assert "2 dropouts" in crease("recalibrate", path, "--data", tmp_path / "x.npz", "-o", tmp_path / "out.onnx").stdout
    arrays = arrays_of(path)
    mean, var = statistics_of(tmp_path / "out.onnx")["second_node"]
    np.testing.assert_allclose(mean, arrays["first_beta"], rtol=1e-4, atol=1e-6)  # of what the first one made
    np.testing.assert_allclose(var, arrays["first_gamma"] ** 2 * 160 / 159, rtol=1e-4)
    written = onnx.load(tmp_path / "out.onnx")
    onnx.checker.check_model(written, full_check=True)
    dropouts = [n for n in written.graph.node if n.op_type == "Dropout"]
    assert [list(n.input) for n in dropouts] == [["a", "ratio"], ["c"]]
    assert dropouts[0].doc_string == "words"
    assert relative_error(crease.run(tmp_path / "out.onnx", {"x": x})["y"], judge(written, {"x": x})["y"]) < 1e-5


def constants_behind(kind, model):
    """The statistics of `model`, which are initializers, computed by nodes."""
    made = []
    for node in list(model.graph.node):
        for slot in (3, 4) if node.op_type == "BatchNormalization" else ():
            stored, name = node.input[slot], f"{node.name}_{slot}"
            if kind == "ConstantOfShape":
                made.append(helper.make_node(kind, ["shape"], [name], value=tensor("", [0.5])))
            elif kind == "Cast":
                made += [helper.make_node("Cast", [stored], [f"{name}_half"], to=onnx.TensorProto.FLOAT16),
                         helper.make_node("Cast", [f"{name}_half"], [name], to=onnx.TensorProto.FLOAT)]
            elif kind == "Constant":
                value = next(t for t in model.graph.initializer if t.name == stored)
                made.append(helper.make_node(kind, [], [name], value=value))
            else:
                made.append(helper.make_node(kind, [stored], [name]))
            node.input[slot] = name
    nodes = made + list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.append(tensor("shape", [3], np.int64))
    return model


@pytest.mark.parametrize("kind", ["Identity", "Cast", "Constant", "ConstantOfShape"])
@pytest.mark.parametrize("training", [0, 1])
def test_statistics_that_are_computed(crease, rng, tmp_path, kind, training):
    """Also where two nodes read the same initializers: each gets its own."""
    extra = {"training_mode": 1} if training else {}
    nodes = [batchnorm_node("x", "a", **extra), helper.make_node("Mul", ["a", "three"], ["b"]), batchnorm_node("b", "y", **extra)]
    nodes[2].name = "second"
    nodes[2].output[1:] = [f"{name}_2" for name in nodes[2].output[1:]]
    model = make_model(nodes, [*batchnorm_tensors(3, rng), tensor("three", 3)], {"x": ["N", 3, 4, 5]}, {"y": ["N", 3, 4, 5]})
    gamma, beta = (numpy_helper.to_array(t) for t in model.graph.initializer[:2])
    x = rng.standard_normal((8, 3, 4, 5)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    crease("recalibrate", save(constants_behind(kind, model), tmp_path / "m.onnx"), "--data", tmp_path / "x.npz", "-o",
           tmp_path / "out.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "out.onnx"), full_check=True)
    got = statistics_of(tmp_path / "out.onnx")
    for (mean, var), want in zip((got["bn_node"], got["second"]), (batch_statistics(x), (3 * beta, 9 * gamma ** 2 * 160 / 159))):
        assert mean.dtype == var.dtype == np.float32
        np.testing.assert_allclose(mean, want[0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(var, want[1], rtol=1e-4)


def test_never_trained_and_broken_statistics(crease, rng, tmp_path):
    model = single_norm(rng)
    for t in model.graph.initializer:
        if t.name == "bn_mean":
            t.CopyFrom(tensor("bn_mean", [np.nan, np.inf, 0]))
        if t.name == "bn_var":
            t.CopyFrom(tensor("bn_var", [-1, 0, np.nan]))
    x = rng.standard_normal((4, 3, 4, 5)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    arguments = ["recalibrate", save(model, tmp_path / "m.onnx"), "--data", tmp_path / "x.npz", "-o", tmp_path / "out.onnx"]
    text, report = crease(*arguments).stdout, crease.json(*arguments)["nodes"][0]
    assert "no usable statistics in 3 channels" in text and "inf" not in text and "nan" not in text
    assert (report["unusable"], report["mean_shift"], report["variance_ratios"]) == (3, None, None)
    got_mean, got_var = statistics_of(tmp_path / "out.onnx")["bn_node"]
    mean, var = batch_statistics(x)
    np.testing.assert_allclose(got_mean, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got_var, var, rtol=1e-5)


def test_folder_is_one_stream_in_sorted_order(crease, rng, tmp_path):
    path = save(single_norm(rng), tmp_path / "m.onnx")
    x = rng.standard_normal((11, 3, 4, 5)).astype(np.float32)
    folder = tmp_path / "data"
    folder.mkdir()
    np.save(folder / "b.npy", x[5:])
    np.savez(folder / "a.npz", x=x[:5].astype(np.float64))
    (folder / "notes.txt").write_text("not data")
    report = crease.json("recalibrate", path, "--data", folder, "--batch-size", 4, "-o", tmp_path / "out.onnx")
    assert (report["batches"], report["left_out"]) == (2, 3)
    got_mean, _ = statistics_of(tmp_path / "out.onnx")["bn_node"]
    np.testing.assert_allclose(got_mean, np.mean([batch_statistics(x[i:i + 4])[0] for i in (0, 4)], 0), rtol=1e-5, atol=1e-6)
    report = crease.json("recalibrate", path, "--data", folder, "--batch-size", 4, "--batches", 1, "-o", tmp_path / "one.onnx")
    assert report["batches"] == 1


def test_keeps_the_rest_of_the_file(crease, rng, tmp_path):
    model = conv_bn_relu(rng)
    model.metadata_props.add(key="owner", value="me")
    model.doc_string, model.producer_version = "words", "7"
    path = save(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=rng.standard_normal((4, 3, 9, 8)).astype(np.float32))
    crease("recalibrate", path, "--data", tmp_path / "x.npz", "-o", tmp_path / "out.onnx")
    after = onnx.load(tmp_path / "out.onnx")
    for field in ("ir_version", "producer_name", "producer_version", "doc_string"):
        assert getattr(after, field) == getattr(model, field)
    assert list(after.metadata_props) == list(model.metadata_props)
    assert list(after.graph.input) == list(model.graph.input) and list(after.graph.output) == list(model.graph.output)
    assert [n.name for n in after.graph.node] == [n.name for n in model.graph.node]
    before, now = arrays_of(path), arrays_of(tmp_path / "out.onnx")
    assert all(np.array_equal(before[name], now[name]) for name in ("w", "b", "bn_gamma", "bn_beta"))


def test_too_small_batches_are_refused(crease, rng, tmp_path):
    path = save(single_norm(rng, shape=("N", 3, 1, 1)), tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=rng.standard_normal((30, 3, 1, 1)).astype(np.float32))
    done = crease("recalibrate", path, "--data", tmp_path / "x.npz", "--batch-size", 3, "-o", tmp_path / "out.onnx",
                  expect=BAD_INPUT)
    for word in ("bn_node", "3 samples", "at least 4", "GroupNorm", "LayerNorm", "--batch-size"):
        assert word in done.stderr
    assert not (tmp_path / "out.onnx").exists()
    crease("recalibrate", path, "--data", tmp_path / "x.npz", "--batch-size", 4, "-o", tmp_path / "out.onnx")


def test_bad_data_is_refused(crease, rng, tmp_path):
    path = save(single_norm(rng), tmp_path / "m.onnx")
    x = rng.standard_normal((4, 3, 4, 5)).astype(np.float32)

    def message(*flags, expect=BAD_INPUT, **arrays):
        np.savez(tmp_path / "x.npz", **arrays)
        done = crease("recalibrate", path, "--data", tmp_path / "x.npz", "-o", tmp_path / "out.onnx", *flags, expect=expect)
        assert not (tmp_path / "out.onnx").exists()
        return done.stderr
    assert "expected an array 'x'" in message(a=x, b=x)
    assert "(4, 2, 4, 5)" in message(x=x[:, :2])
    assert "found uint8" in message(x=x.astype(np.uint8))
    assert "a mean of nan" in message(x=np.where(x > 1, np.nan, x).astype(np.float32))
    assert "no data" in message(x=x[:0])
    assert "--momentum" in message("--momentum", "2", expect=USAGE, x=x)
    (tmp_path / "x.txt").write_text("no arrays")
    for data, words in (("x.txt", "expected a .npz or .npy"), ("none.npz", "no such file"), ("none.txt", "no such file")):
        done = crease("recalibrate", path, "--data", tmp_path / data, "-o", tmp_path / "out.onnx", expect=BAD_INPUT)
        assert words in done.stderr and data in done.stderr
    assert "in row 2 does not fit float32" in message(x=x * np.array([1, 1, 1e300, 1]).reshape(4, 1, 1, 1))
    relu = make_model([helper.make_node("Relu", ["x"], ["y"])], [], {"x": ["N", 3]}, {"y": ["N", 3]})
    assert "before folding" in crease("recalibrate", save(relu, tmp_path / "relu.onnx"), "--data", tmp_path / "x.npz", "-o",
                                      tmp_path / "out.onnx", expect=BAD_INPUT).stderr


@pytest.mark.parametrize("spread, fits", [(200, True), (400, False)])
def test_statistics_that_overflow_their_type(crease, rng, tmp_path, spread, fits):
    half = onnx.TensorProto.FLOAT16
    model = single_norm(rng)
    for info in (model.graph.input[0], model.graph.output[0]):
        info.type.tensor_type.elem_type = half
    for t in model.graph.initializer:
        t.CopyFrom(tensor(t.name, numpy_helper.to_array(t), np.float16))
    x = rng.standard_normal((32, 3, 4, 5)) * np.array([1, spread, 1]).reshape(3, 1, 1)
    np.savez(tmp_path / "x.npz", x=x.astype(np.float16))
    done = crease("recalibrate", save(model, tmp_path / "m.onnx"), "--data", tmp_path / "x.npz", "-o", tmp_path / "out.onnx",
                  expect=None)
    assert (done.returncode, (tmp_path / "out.onnx").exists()) == (0 if fits else BAD_INPUT, fits)
    for word in () if fits else ("bn_node", "channel 1", "variance of 1", "float16", "65504"):
        assert word in done.stderr


def behind(rng, case):
    """A network in which a batch-norm does not depend on what no one knows, what is fed besides, or what needs batch 1."""
    nodes = [batchnorm_node("x", "t")]
    inputs, constants = {"x": [1, 3, 4, 5]}, batchnorm_tensors(3, rng)
    if case == "unknown":
        nodes += [helper.make_node("Unheard", ["t"], ["y"], domain="of")]
    elif case == "scalar":
        nodes += [helper.make_node("Mul", ["t", "k"], ["y"])]
        inputs["k"] = []
    elif case == "reshape":
        nodes += [helper.make_node("Reshape", ["t", "shape"], ["y"])]
        constants.append(tensor("shape", [1, 60], np.int64))
    else:
        nodes = [helper.make_node("Identity", ["k"], ["z"]), *nodes, helper.make_node("Identity", ["t"], ["y"])]
        inputs["k"] = [5, 7]
    model = make_model(nodes, constants, inputs, {"y": ["a"] if case == "reshape" else [1, 3, 4, 5]})
    model.opset_import.append(helper.make_opsetid("of", 1))
    return model


@pytest.mark.parametrize("case", ["unknown", "scalar", "reshape", "apart"])
def test_only_what_batch_norms_depend_on_counts(crease, rng, tmp_path, case):
    model = behind(rng, case)
    x = rng.standard_normal((64, 3, 4, 5)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    report = crease.json("recalibrate", save(model, tmp_path / "m.onnx"), "--data", tmp_path / "x.npz", "-o",
                         tmp_path / "out.onnx")
    assert (report["batches"], report["batch_size"]) == (2, 32)
    np.testing.assert_allclose(statistics_of(tmp_path / "out.onnx")["bn_node"][0],
                               np.mean([batch_statistics(x[i:i + 32])[0] for i in (0, 32)], 0), rtol=1e-5, atol=1e-6)
    written = onnx.load(tmp_path / "out.onnx")
    assert [n.op_type for n in written.graph.node] == [n.op_type for n in model.graph.node]
    assert list(written.graph.input) == list(model.graph.input)


def test_an_unknown_operator_before_a_batch_norm(crease, rng, tmp_path):
    model = make_model([helper.make_node("Unheard", ["x"], ["t"], name="odd", domain="of"), batchnorm_node("t", "y")],
                       batchnorm_tensors(3, rng), {"x": ["N", 3, 4, 5]}, {"y": ["N", 3, 4, 5]})
    model.opset_import.append(helper.make_opsetid("of", 1))
    np.savez(tmp_path / "x.npz", x=np.zeros((32, 3, 4, 5), np.float32))
    done = crease("recalibrate", save(model, tmp_path / "m.onnx"), "--data", tmp_path / "x.npz", "-o", tmp_path / "out.onnx",
                  expect=BAD_INPUT)
    assert "Unheard 'odd'" in done.stderr and "a batch-norm depends on it" in done.stderr


def test_images_of_bytes_are_normalized(crease, rng, tmp_path):
    path = save(single_norm(rng), tmp_path / "m.onnx")
    images = rng.integers(0, 256, (8, 3, 4, 5)).astype(np.uint8)
    mean, std = np.float32([0.4, 0.5, 0.6]).reshape(3, 1, 1), np.float32([0.2, 0.3, 0.1]).reshape(3, 1, 1)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(8), mean=mean, std=std)
    np.savez(tmp_path / "b.npz", images=images)
    crease("recalibrate", path, "--data", tmp_path / "a.npz", "-o", tmp_path / "a.onnx")
    crease("recalibrate", path, "--data", tmp_path / "b.npz", "--mean", "0.4,0.5,0.6", "--std", "0.2,0.3,0.1",
           "-o", tmp_path / "b.onnx")
    want_mean, want_var = batch_statistics((images / 255.0 - mean) / std)
    for name in ("a", "b"):
        got_mean, got_var = statistics_of(tmp_path / f"{name}.onnx")["bn_node"]
        np.testing.assert_allclose(got_mean, want_mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(got_var, want_var, rtol=1e-5)


@pytest.mark.parametrize("dtype, value, given, fits", [
    ("uint8", 355, np.int64, False), ("uint8", -1, np.int64, False), ("uint8", 255, np.int64, True),
    ("int64", 2 ** 63, np.uint64, False), ("int64", 2 ** 40, np.uint64, True), ("int32", 2 ** 32 + 1, np.int64, False),
    ("bool", 2, np.uint8, False), ("bool", 1, np.uint8, True)])
def test_integers_that_do_not_fit_are_refused(crease, rng, tmp_path, dtype, value, given, fits):
    model = make_model([helper.make_node("Cast", ["x"], ["c"], to=onnx.TensorProto.FLOAT), batchnorm_node("c", "y")],
                       batchnorm_tensors(3, rng), {"x": ["N", 3, 4, 5]}, {"y": ["N", 3, 4, 5]})
    model.graph.input[0].type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    x = np.ones((4, 3, 4, 5), given)
    x[3, 2, 1, 0] = value
    np.savez(tmp_path / "x.npz", x=x)
    done = crease("recalibrate", save(model, tmp_path / "m.onnx"), "--data", tmp_path / "x.npz", "-o", tmp_path / "out.onnx",
                  expect=0 if fits else BAD_INPUT)
    assert fits or (f"in row 3 does not fit {dtype}" in done.stderr and "input 'x'" in done.stderr)


@pytest.mark.parametrize("output", ["x.npz", "./x.npz", "folder/a.npy"])
def test_the_data_are_not_overwritten(crease, rng, tmp_path, output):
    path = save(single_norm(rng), tmp_path / "m.onnx")
    x = rng.standard_normal((8, 3, 4, 5)).astype(np.float32)
    (tmp_path / "folder").mkdir()
    np.savez(tmp_path / "x.npz", x=x), np.save(tmp_path / "folder" / "a.npy", x)
    before = (tmp_path / output).read_bytes()
    data = tmp_path / ("folder" if "folder" in output else "x.npz")
    done = crease("recalibrate", path, "--data", data, "-o", f"{tmp_path}/{output}", expect=BAD_INPUT)
    assert "a file that is read" in done.stderr and (tmp_path / output).read_bytes() == before


def test_options_before_the_model(crease, rng, tmp_path):
    """As the usage line has them."""
    path = save(single_norm(rng), tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=rng.integers(0, 256, (8, 3, 4, 5)).astype(np.uint8))
    data = ["--data", tmp_path / "x.npz", "-o", tmp_path / "out.onnx"]
    crease("recalibrate", "--mean", "0.4", "--std", "0.2", path, *data)
    crease("recalibrate", *data, "--mean", "0.4,0.5,0.6", "--std", "0.2", path)
    done = crease("recalibrate", *data, "--mean", "0.4", "--std", "-1", path, expect=USAGE)
    assert "--std" in done.stderr and "expected a number > 0, got -1" in done.stderr
    assert "expected a number > 0, got 0" in crease("recalibrate", *data, "--batches", "0", path, expect=USAGE).stderr


def test_momentum_needs_stored_statistics(crease, rng, tmp_path):
    model = single_norm(rng)
    model.graph.initializer[3].CopyFrom(tensor("bn_var", [1, np.nan, 1]))
    path = save(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=rng.standard_normal((4, 3, 4, 5)).astype(np.float32))
    done = crease("recalibrate", path, "--data", tmp_path / "x.npz", "-o", tmp_path / "out.onnx", "--momentum", "0.1",
                  expect=BAD_INPUT)
    for word in ("bn_node", "channel 1", "stored variance", "nan", "--momentum"):
        assert word in done.stderr
    crease("recalibrate", path, "--data", tmp_path / "x.npz", "-o", tmp_path / "out.onnx", "--momentum", "1")


# --- a real network --------------------------------------------------------------------------------------------------

SEEN = 120  # of the 200 images; the others judge


def cifar10(crease, model):
    """Accuracy on the images that recalibration did not see, in percent."""
    with np.load(f"{MODELS}/cifar10_200.npz") as data:
        images = ((data["images"] / np.float32(255) - data["mean"]) / data["std"]).astype(np.float32)[SEEN:]
        labels = data["labels"][SEEN:]
    return 100 * float((crease.run(model, {"input": images})["logits"].argmax(1) == labels).mean())


def spoil(path, out, rng, training):
    """Statistics of another domain: means moved by a deviation or two, variances by factors of up to 4; or never trained."""
    model = onnx.load(path)
    arrays = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "BatchNormalization":
            continue
        mean, var = (numpy_helper.to_array(arrays[name]) for name in node.input[3:5])
        if training:
            moved = np.zeros_like(mean), np.ones_like(var)
            node.attribute.append(helper.make_attribute("training_mode", 1))
            node.output.extend([f"{node.name}_m", f"{node.name}_v"])
        else:
            moved = mean + rng.normal(0, 1.5, mean.shape) * np.sqrt(var), var * np.exp(rng.uniform(-1.4, 1.4, var.shape))
        for name, value in zip(node.input[3:5], moved):
            arrays[name].CopyFrom(tensor(name, value))
    return save(model, out)


@pytest.mark.shared
@pytest.mark.parametrize("training", [False, True], ids=["spoiled", "training_mode"])
def test_resnet20_comes_back(crease, rng, tmp_path, training):
    path = f"{MODELS}/resnet20_cifar10.onnx"
    with np.load(f"{MODELS}/cifar10_200.npz") as data:
        np.savez(tmp_path / "seen.npz", images=data["images"][:SEEN], labels=data["labels"][:SEEN], mean=data["mean"],
                 std=data["std"])
    whole = onnx.load(path)
    if training and whole.opset_import[0].version < 14:
        whole = onnx.version_converter.convert_version(whole, 17)
    source = save(whole, tmp_path / "whole.onnx")
    good = cifar10(crease, source)
    spoiled = spoil(source, tmp_path / "spoiled.onnx", rng, training)
    if not training:
        assert cifar10(crease, spoiled) < good - 20
    crease("recalibrate", spoiled, "--data", tmp_path / "seen.npz", "--batch-size", 60, "-o", tmp_path / "again.onnx", timeout=60)
    assert not is_training(tmp_path / "again.onnx")
    again = cifar10(crease, tmp_path / "again.onnx")
    assert again >= good - 2, f"{good} % before, {again} % after"
    folded = crease.fold(tmp_path / "again.onnx", tmp_path / "folded.onnx")
    assert cifar10(crease, folded) == again
