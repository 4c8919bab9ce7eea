# SPDX-License-Identifier: Apache-2.0
"""What `crease fold` writes: the same function, and everything that the file said besides."""
import os
import subprocess

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from helpers import (BAD_INPUT, FINDING, TOLERANCE, USAGE, batchnorm_node, batchnorm_tensors, conv_bn_relu, count, judge,
                     make_model, random_feeds, save, tensor, worst_error)


def folded(crease, model, folder, *flags):
    """Folds a ModelProto; returns what came out, checked by onnx."""
    source = save(model, folder / "in.onnx")
    out = onnx.load(crease.fold(source, str(folder / "out.onnx"), *flags))
    onnx.checker.check_model(out, full_check=True)
    return out


def assert_same_function(model, other):
    feeds = random_feeds(model, np.random.default_rng(1))
    want = judge(model, feeds)
    assert worst_error(judge(other, feeds), want) <= 1e-5


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
def test_every_opset(crease, rng, tmp_path, opset, bias):
    model = conv_bn_relu(rng, opset, ir_version=3 if opset < 9 else 8 if opset < 19 else 10, bias=bias)
    out = folded(crease, model, tmp_path)
    assert [n.op_type for n in out.graph.node] == ["Conv", "Relu"]
    assert out.opset_import[0].version == opset
    assert_same_function(model, out)


def test_ir3_initializers_are_also_inputs(crease, rng, tmp_path):
    model = conv_bn_relu(rng, opset=8, ir_version=3, bias=False)
    out = folded(crease, model, tmp_path)
    assert out.ir_version == 3
    assert count(out, "BatchNormalization") == 0
    names = {v.name for v in out.graph.input}
    assert all(t.name in names for t in out.graph.initializer), "IR 3 wants each initializer among the inputs"
    assert out.graph.input[0] == model.graph.input[0]
    assert_same_function(model, out)


def test_weights_in_constant_nodes(crease, rng, tmp_path):
    model = conv_bn_relu(rng, constant_nodes=True)
    # A second conv with Constant weights that nothing touches.
    model.graph.node.extend([
        helper.make_node("Constant", [], ["w2"], name="const_w2", value=tensor("w2", rng.normal(0, 1, (2, 5, 1, 1)))),
        helper.make_node("Conv", ["y", "w2"], ["z"], name="conv2")])
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 2, 9, 8]))
    out = folded(crease, model, tmp_path)
    assert count(out, "BatchNormalization") == 0
    kept = [n for n in out.graph.node if n.name == "const_w2"]
    assert kept == [n for n in model.graph.node if n.name == "const_w2"], "an untouched Constant node must stay as it is"
    assert_same_function(model, out)


def test_metadata_names_and_doc_strings(crease, rng, tmp_path):
    model = conv_bn_relu(rng)
    model.producer_name, model.producer_version = "tests", "1.2"
    model.domain, model.model_version, model.doc_string = "org.example", 7, "model doc"
    model.graph.doc_string = "graph doc"
    model.graph.input[0].doc_string, model.graph.output[0].doc_string = "input doc", "output doc"
    model.graph.node[0].doc_string, model.graph.node[2].doc_string = "conv doc", "relu doc"
    helper.set_model_props(model, {"author": "A. Person", "empty": "", "unicode": "é漢字"})
    model.opset_import.append(helper.make_opsetid("org.example.unused", 3))
    out = folded(crease, model, tmp_path)
    for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string", "ir_version"):
        assert getattr(out, field) == getattr(model, field), field
    assert list(out.metadata_props) == list(model.metadata_props)
    assert list(out.opset_import) == list(model.opset_import)
    assert out.graph.name == model.graph.name and out.graph.doc_string == "graph doc"
    assert list(out.graph.input) == list(model.graph.input)
    assert list(out.graph.output) == list(model.graph.output)
    by_name = {n.name: n for n in out.graph.node}
    assert by_name["conv"].doc_string == "conv doc" and by_name["relu"].doc_string == "relu doc"
    assert list(by_name["conv"].attribute) == list(model.graph.node[0].attribute)


def field(number, payload):
    """One length-delimited protobuf field."""
    tag, out = number << 3 | 2, b""
    for value in (tag, len(payload)):
        while value >= 0x80:
            out += bytes([value & 0x7F | 0x80])
            value >>= 7
        out += bytes([value])
    return out + payload


def test_unknown_fields_are_kept(crease, rng, tmp_path):
    model = conv_bn_relu(rng)
    relu = onnx.NodeProto.FromString(model.graph.node[2].SerializeToString() + field(4001, b"node-level"))
    model.graph.node[2].CopyFrom(relu)
    graph = onnx.GraphProto.FromString(model.graph.SerializeToString() + field(4002, b"graph-level"))
    model.graph.CopyFrom(graph)
    data = model.SerializeToString() + field(4003, b"model-level")
    source = tmp_path / "in.onnx"
    source.write_bytes(data)
    for mark in (b"node-level", b"graph-level", b"model-level"):
        assert mark in data
    out = tmp_path / "out.onnx"
    crease.fold(source, out)
    for mark in (b"node-level", b"graph-level", b"model-level"):
        assert out.read_bytes().count(mark) == 1, mark
    assert count(str(out), "BatchNormalization") == 0


def test_nodes_of_another_domain_are_kept(crease, rng, tmp_path):
    model = conv_bn_relu(rng)
    model.opset_import.append(helper.make_opsetid("org.example", 1))
    model.graph.node.append(helper.make_node("Custom", ["y"], ["z"], name="custom", domain="org.example", flavour="mint"))
    model.graph.output[0].name = "z"
    source = save(model, tmp_path / "in.onnx")
    out = onnx.load(crease.fold(source, str(tmp_path / "out.onnx")))
    assert count(out, "BatchNormalization") == 0
    assert out.graph.node[-1] == model.graph.node[-1]
    np.savez(tmp_path / "in.npz", **random_feeds(model, rng))
    done = crease("run", source, "--input", tmp_path / "in.npz", "--output", tmp_path / "out.npz", expect=BAD_INPUT)
    assert "org.example" in done.stderr and "Custom" in done.stderr


@pytest.mark.parametrize("node, extra", [
    (helper.make_node("Resize", ["y", "", "k"], ["z"], mode="linear", antialias=1), tensor("k", [1, 1, 0.5, 0.5])),
    (helper.make_node("Pad", ["y", "k"], ["z"], mode="wrap"), tensor("k", [0, 0, 1, 1, 0, 0, 1, 1], np.int64)),
    (helper.make_node("MaxPool", ["y"], ["z"], kernel_shape=[9, 10], strides=[3, 3], ceil_mode=1), None)],
    ids=["antialias", "wrap", "window larger than the map"])
def test_nodes_in_forms_that_are_rare_are_kept(crease, rng, tmp_path, node, extra):
    """What Crease has no kernel for in this form is no reason to leave the rest of the network as it is."""
    model = conv_bn_relu(rng, opset=18)
    model.graph.node.append(node)
    if extra is not None:
        model.graph.initializer.append(extra)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 5, "h", "w"]))
    out = folded(crease, model, tmp_path)
    assert [n.op_type for n in out.graph.node] == ["Conv", "Relu", node.op_type]
    assert_same_function(model, out)


def test_parameters_of_another_type_than_the_data(crease, rng, tmp_path):
    """A float16 batch-norm with float32 parameters, which opset 15 allows, merged with what follows it."""
    zeros, ones = np.zeros(5), np.ones(5)
    half = helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["N", 5, 4, 4])
    graph = helper.make_graph(
        [helper.make_node("Abs", ["x"], ["a"]), helper.make_node("BatchNormalization", ["a", "s", "b", "m", "v"], ["n"]),
         helper.make_node("Mul", ["n", "k"], ["c"]), helper.make_node("Abs", ["c"], ["y"])], "mixed",
        [half], [helper.make_tensor_value_info("y", TensorProto.FLOAT16, ["N", 5, 4, 4])],
        [tensor("s", rng.uniform(0.5, 2, 5)), tensor("b", zeros), tensor("m", zeros), tensor("v", ones),
         tensor("k", rng.uniform(0.5, 2, (1, 5, 1, 1)), np.float16)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    out = folded(crease, model, tmp_path)
    assert [n.op_type for n in out.graph.node] == ["Abs", "Mul", "Abs"]
    feeds = {"x": rng.normal(size=(2, 5, 4, 4)).astype(np.float16)}
    assert worst_error(judge(out, feeds), judge(model, feeds)) <= 4e-3


def test_statistics_of_every_element_are_kept(crease, rng, tmp_path):
    model = conv_bn_relu(rng, opset=7)
    names = ("scale", "shift", "mean", "var")
    model.graph.node.append(helper.make_node("BatchNormalization", ["y", *names], ["z"], spatial=0))
    model.graph.initializer.extend(tensor(n, rng.uniform(0.5, 1.5, (5, 9, 8))) for n in names)
    model.graph.output[0].name = "z"
    out = folded(crease, model, tmp_path)
    assert [n.op_type for n in out.graph.node] == ["Conv", "Relu", "BatchNormalization"]
    assert_same_function(model, out)


def test_a_model_without_batchnorm(crease, rng, tmp_path):
    model = make_model([helper.make_node("Relu", ["x"], ["y"], name="relu")], [], {"x": ["N", 3]}, {"y": ["N", 3]})
    out = folded(crease, model, tmp_path)
    assert out == model


def test_same_bytes_every_time(crease, rng, tmp_path):
    source = save(conv_bn_relu(rng), tmp_path / "in.onnx")
    first = tmp_path / "first.onnx"
    crease.fold(source, first)
    for again in (source, first):
        crease.fold(again, tmp_path / "again.onnx")
        assert (tmp_path / "again.onnx").read_bytes() == first.read_bytes()


def test_fold_in_place(crease, rng, tmp_path):
    model = conv_bn_relu(rng)
    path = save(model, tmp_path / "m.onnx")
    crease.fold(path, path)
    out = onnx.load(path)
    assert count(out, "BatchNormalization") == 0
    assert_same_function(model, out)
    assert os.listdir(tmp_path) == ["m.onnx"], "a temporary file was left"


def test_a_failed_fold_leaves_the_old_file(crease, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"\xff" * 100)
    (tmp_path / "out.onnx").write_bytes(b"precious")
    crease("fold", tmp_path / "bad.onnx", "-o", tmp_path / "out.onnx", expect=BAD_INPUT)
    assert (tmp_path / "out.onnx").read_bytes() == b"precious"
    assert sorted(os.listdir(tmp_path)) == ["bad.onnx", "out.onnx"]


def test_shared_weights_are_not_edited(crease, rng, tmp_path):
    initializers = [tensor("w", rng.normal(0, 0.3, (3, 3, 3, 3))), *batchnorm_tensors(3, rng)]
    nodes = [helper.make_node("Conv", ["x", "w"], ["a"], name="first", pads=[1, 1, 1, 1]), batchnorm_node("a", "n"),
             helper.make_node("Relu", ["n"], ["r"]),
             helper.make_node("Conv", ["r", "w"], ["y"], name="second", pads=[1, 1, 1, 1])]
    model = make_model(nodes, initializers, {"x": ["N", 3, 6, 6]}, {"y": None})
    out = folded(crease, model, tmp_path)
    second = next(n for n in out.graph.node if n.name == "second")
    kept = next(t for t in out.graph.initializer if t.name == second.input[1])
    assert np.array_equal(numpy_helper.to_array(kept), numpy_helper.to_array(initializers[0]))
    assert_same_function(model, out)


@pytest.mark.parametrize("observer", ["output", "consumer"])
def test_a_conv_that_others_see_is_left_right(crease, rng, tmp_path, observer):
    model = conv_bn_relu(rng)
    if observer == "output":
        model.graph.output.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, ["N", 5, 9, 8]))
    else:
        model.graph.node.append(helper.make_node("Sigmoid", ["c"], ["s"]))
        model.graph.output.append(helper.make_tensor_value_info("s", TensorProto.FLOAT, ["N", 5, 9, 8]))
    assert_same_function(model, folded(crease, model, tmp_path))


@pytest.mark.parametrize("group", [1, 2, 6])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
def test_convolutions(crease, rng, tmp_path, kind, rank, group):
    channels, out_channels = 6, 12
    shape = (out_channels, channels // group) if kind == "Conv" else (channels, out_channels // group)
    initializers = [tensor("w", rng.normal(0, 0.3, (*shape, *[3] * rank))), *batchnorm_tensors(out_channels, rng)]
    nodes = [helper.make_node(kind, ["x", "w"], ["c"], name="conv", group=group, strides=[2] * rank), batchnorm_node("c", "y")]
    model = make_model(nodes, initializers, {"x": ["N", channels, *[7] * rank]}, {"y": None})
    out = folded(crease, model, tmp_path)
    assert [n.op_type for n in out.graph.node] == [kind]
    assert_same_function(model, out)
    feeds = random_feeds(model, rng)
    assert worst_error(crease.run(str(tmp_path / "in.onnx"), feeds), judge(model, feeds)) <= TOLERANCE


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm(crease, rng, tmp_path, transposed):
    weights = rng.normal(0, 0.3, (7, 4) if transposed else (4, 7))
    initializers = [tensor("w", weights), tensor("b", rng.normal(0, 1, 7)), *batchnorm_tensors(7, rng)]
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["c"], alpha=0.5, beta=2.0, transB=transposed), batchnorm_node("c", "y")]
    model = make_model(nodes, initializers, {"x": ["N", 4]}, {"y": ["N", 7]})
    out = folded(crease, model, tmp_path)
    assert [n.op_type for n in out.graph.node] == ["Gemm"]
    assert_same_function(model, out)


def test_training_mode_is_kept(crease, rng, tmp_path):
    model = conv_bn_relu(rng, training_mode=1)
    out = folded(crease, model, tmp_path)
    assert count(out, "BatchNormalization") == 1
    assert_same_function(model, out)
    crease("fold", tmp_path / "in.onnx", "-o", tmp_path / "o2.onnx", "--fail-on", "unfolded", expect=FINDING)


def test_dead_channels_fold(crease, rng, tmp_path):
    model = conv_bn_relu(rng)
    gamma = next(t for t in model.graph.initializer if t.name == "bn_gamma")
    values = numpy_helper.to_array(gamma).copy()
    values[[1, 3]] = 0
    gamma.CopyFrom(tensor("bn_gamma", values))
    out = folded(crease, model, tmp_path)
    assert count(out, "BatchNormalization") == 0
    assert_same_function(model, out)


# ---------------------------------------------------------------------------------------------------------------------
# External data.

def external_model(rng, folder, location="weights.bin"):
    model = conv_bn_relu(rng)
    path = save(model, folder / "in.onnx", save_as_external_data=True, all_tensors_to_one_file=True, location=location,
                size_threshold=0)
    return onnx.load(path), path


def test_external_data(crease, rng, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir(), target.mkdir()
    model, path = external_model(rng, source)
    weights = (source / "weights.bin").read_bytes()
    out_path = str(target / "out.onnx")
    crease.fold(path, out_path)
    out = onnx.load(out_path)
    onnx.checker.check_model(out_path)
    assert count(out, "BatchNormalization") == 0
    feeds = random_feeds(model, rng)
    want = judge(model, feeds)
    assert worst_error(judge(out_path, feeds), want) <= 1e-5
    assert worst_error(crease.run(path, feeds), want) <= 1e-5
    assert worst_error(crease.run(out_path, feeds), want) <= 1e-5
    assert (source / "weights.bin").read_bytes() == weights
    assert sorted(os.listdir(source)) == ["in.onnx", "weights.bin"]


def test_external_data_beside_the_original(crease, rng, tmp_path):
    model, path = external_model(rng, tmp_path)
    weights = (tmp_path / "weights.bin").read_bytes()
    crease.fold(path, str(tmp_path / "out.onnx"))
    assert (tmp_path / "weights.bin").read_bytes() == weights, "the original's data was overwritten"
    feeds = random_feeds(model, rng)
    assert worst_error(judge(str(tmp_path / "out.onnx"), feeds), judge(path, feeds)) <= 1e-5


def relocate(path, change):
    model = onnx.load(path, load_external_data=False)
    for t in model.graph.initializer:
        entries = {e.key: e.value for e in t.external_data}
        change(entries)
        del t.external_data[:]
        for key, value in entries.items():
            t.external_data.add(key=key, value=value)
    onnx.save(model, path)


BAD_LOCATIONS = {"parent": {"location": "../weights.bin"}, "absolute": None, "missing": {"location": "nothing.bin"},
                 "folder": {"location": "."}, "empty": {"location": ""}, "huge-offset": {"offset": str(2 ** 62)},
                 "negative-offset": {"offset": "-4"}, "text-offset": {"offset": "four"}, "short": {"length": "1"},
                 "long": {"length": str(2 ** 40)}}


@pytest.mark.parametrize("case", BAD_LOCATIONS)
def test_bad_external_data(crease, rng, tmp_path, case):
    folder = tmp_path / "inner"
    folder.mkdir()
    _, path = external_model(rng, folder)
    (tmp_path / "weights.bin").write_bytes((folder / "weights.bin").read_bytes())
    relocate(path, lambda entries: entries.update(BAD_LOCATIONS[case] or {"location": str(folder / "weights.bin")}))
    crease("fold", path, "-o", tmp_path / "out.onnx", expect=BAD_INPUT)
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("link", [os.symlink, os.link], ids=["symlink", "hardlink"])
def test_linked_external_data(crease, rng, tmp_path, link):
    folder = tmp_path / "inner"
    folder.mkdir()
    _, path = external_model(rng, folder)
    os.rename(folder / "weights.bin", tmp_path / "elsewhere.bin")
    link(tmp_path / "elsewhere.bin", folder / "weights.bin")
    crease("fold", path, "-o", tmp_path / "out.onnx", expect=BAD_INPUT)


@pytest.mark.parametrize("what", ["folder", "pattern", "names"])
def test_several_models(crease, rng, tmp_path, what):
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("a", "b"):
        save(conv_bn_relu(rng), folder / f"{name}.onnx")
    (folder / "notes.txt").write_text("no model")
    models = {"folder": [folder], "pattern": [f"{folder}/*.onnx"], "names": [folder / "a.onnx", folder / "b.onnx"]}[what]
    reports = crease.json("fold", *models, "-o", tmp_path / "out")
    assert [os.path.basename(r["output"]) for r in reports] == ["a.onnx", "b.onnx"]
    assert all(count(onnx.load(tmp_path / "out" / f"{n}.onnx"), "BatchNormalization") == 0 for n in ("a", "b"))


def test_several_models_of_one_name(crease, rng, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save(conv_bn_relu(rng), tmp_path / name / "m.onnx")
    crease("fold", f"{tmp_path}/*/m.onnx", "-o", tmp_path / "out", expect=USAGE)
    assert not (tmp_path / "out").exists()
    crease("fold", f"{tmp_path}/none*.onnx", "-o", tmp_path / "out", expect=BAD_INPUT)


@pytest.mark.skipif(not os.environ.get("CREASE_LARGE_MODELS"), reason="CREASE_LARGE_MODELS=1: writes 2.4 GiB")
def test_beyond_2_gib(crease, rng, tmp_path):
    """Weights that no fold touches are never in memory as a whole: the process may have 512 MiB of its own."""
    width, ffn = 4096, 49152
    nodes = [helper.make_node("Conv", ["x", "w0"], ["c"]), batchnorm_node("c", "n"),
             helper.make_node("Relu", ["n"], ["r"]), helper.make_node("Flatten", ["r"], ["f"])]
    shapes, value = {"w0": (width, 4, 1, 1)}, "f"
    for i in range(3):
        name, shape = f"w{i + 1}", (width, ffn) if i % 2 == 0 else (ffn, width)
        shapes[name] = shape
        nodes.append(helper.make_node("MatMul", [value, name], [f"m{i}"]))
        value = f"m{i}"
    model = make_model(nodes, batchnorm_tensors(width, rng), {"x": [1, 4, 1, 1]}, {value: [1, ffn]})
    end = 0
    for name, shape in shapes.items():
        size = 4 * int(np.prod(shape))
        t = TensorProto(name=name, dims=shape, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
        for key, entry in (("location", "weights.bin"), ("offset", str(end)), ("length", str(size))):
            t.external_data.add(key=key, value=entry)
        model.graph.initializer.append(t)
        end += size
    with open(tmp_path / "weights.bin", "wb") as f:
        f.write(rng.normal(0, 1, (width, 4)).astype(np.float32).tobytes())
        f.truncate(end)  # the rest is a hole
    assert end > 2 ** 31
    (tmp_path / "in.onnx").write_bytes(model.SerializeToString())
    limited = ["bash", "-c", f"ulimit -d {512 * 1024}; exec \"$@\"", "bash", crease.binary]
    done = subprocess.run([*limited, "fold", tmp_path / "in.onnx", "-o", tmp_path / "out.onnx"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    out = onnx.load(tmp_path / "out.onnx", load_external_data=False)
    assert count(out, "BatchNormalization") == 0
    data = [f for f in os.listdir(tmp_path) if f.endswith(".data")]
    assert len(data) == 1 and os.path.getsize(tmp_path / data[0]) > 2 ** 31


@pytest.mark.parametrize("variance", [-1, np.nan, np.inf])
def test_a_bad_variance_is_kept(crease, rng, tmp_path, variance):
    """The fold says so and leaves the node; a session refuses the network."""
    model = conv_bn_relu(rng, bias=False)
    for i, t in enumerate(model.graph.initializer):
        if t.name == "bn_var":
            values = numpy_helper.to_array(t).copy()
            values[1] = variance
            model.graph.initializer[i].CopyFrom(numpy_helper.from_array(values, "bn_var"))
    source = save(model, tmp_path / "in.onnx")
    report = crease.json("fold", source, "-o", str(tmp_path / "out.onnx"))
    (entry,) = [e for e in report["entries"] if e["op_type"] == "BatchNormalization"]
    assert (entry["folded"], entry["code"]) == (False, "bad-variance")
    assert "channel 1" in entry["message"]
    assert onnx.load(tmp_path / "out.onnx").graph.node == model.graph.node
    crease("fold", source, "-o", str(tmp_path / "out.onnx"), "--fail-on", "bad-variance", expect=FINDING)
    crease("inspect", source, expect=BAD_INPUT)


@pytest.mark.parametrize("command", ["fold", "lint", "recalibrate", "html"])
def test_external_data_is_not_overwritten(crease, rng, tmp_path, command):
    """Nor through a link or another spelling; the model's own file may be."""
    _, path = external_model(rng, tmp_path)
    weights = (tmp_path / "weights.bin").read_bytes()
    (tmp_path / "link").symlink_to("weights.bin")
    np.savez(tmp_path / "x.npz", x=rng.standard_normal((8, 3, 9, 8)).astype(np.float32))
    flags = {"fold": ["fold"], "lint": ["lint", "--fix"], "recalibrate": ["recalibrate", "--data", tmp_path / "x.npz"],
             "html": ["fold", "-o", tmp_path / "out.onnx"]}[command]
    option = "--html" if command == "html" else "-o"
    for output in ("weights.bin", "./weights.bin", "link"):
        done = crease(*flags, path, option, f"{tmp_path}/{output}", expect=BAD_INPUT)
        assert output in done.stderr and "it is the model's external data" in done.stderr
    assert (tmp_path / "weights.bin").read_bytes() == weights
    if command == "html":
        assert "a file that is read" in crease(*flags, path, option, path, expect=BAD_INPUT).stderr
    else:
        crease(*flags, path, option, path)


def test_the_inputs_of_a_verification_are_not_overwritten(crease, rng, tmp_path):
    path = save(conv_bn_relu(rng), tmp_path / "in.onnx")
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 9, 8), np.float32))
    before = (tmp_path / "x.npy").read_bytes()
    done = crease("fold", path, "-o", tmp_path / "x.npy", "--input", f"x={tmp_path}/x.npy", expect=BAD_INPUT)
    assert "a file that is read" in done.stderr and (tmp_path / "x.npy").read_bytes() == before
