# SPDX-License-Identifier: Apache-2.0
"""Graph inputs that have an initializer, and data for inputs that are none: nothing that is given is left out silently."""
import numpy as np
import onnx
import pytest

from helpers import BAD_INPUT, FINDING, conv_bn_relu, judge, random_feeds, save, tensor


def with_defaults(rng, ir_version=8):
    """A network that lists every initializer as an input, as old exporters do; and one that no fold touches."""
    model = conv_bn_relu(rng, ir_version=ir_version)
    model.graph.node.append(onnx.helper.make_node("Concat", ["y", "more"], ["z"], axis=1))
    model.graph.initializer.append(tensor("more", np.ones((2, 1, 9, 8))))
    model.graph.output[0].name = "z"
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 6
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    listed = {value.name for value in model.graph.input}
    model.graph.input.extend(onnx.helper.make_tensor_value_info(t.name, t.data_type, list(t.dims))
                             for t in model.graph.initializer if t.name not in listed)
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.mark.parametrize("ir_version", [3, 8])
def test_folds_say_what_they_took_for_constants(crease, rng, tmp_path, ir_version):
    model = with_defaults(rng, ir_version)
    if ir_version == 3:
        model.opset_import[0].version = 8
    source, folded = save(model, tmp_path / "in.onnx"), str(tmp_path / "out.onnx")
    found = crease.json("fold", source, "-o", folded, "--verify")
    text = crease("fold", source, "-o", folded).stdout
    inputs = {value.name for value in onnx.load(folded).graph.input}
    assert {"x", "more"} <= inputs and not inputs & {"w", "b", "bn_gamma", "bn_beta", "bn_mean", "bn_var"}
    # Before IR 4 they had to be listed, and nobody could replace them.
    assert (found["input_defaults"], found["input_defaults_gone"]) == ((7, 6) if ir_version > 3 else (0, 0))
    assert ("7 initializers are also graph inputs; folded as constants" in text) == (ir_version > 3)
    crease("diff", source, folded)
    codes = {f["code"] for f in crease.json("lint", source, expect=(0, FINDING))["findings"]}
    assert ("input-defaults" in codes) == (ir_version > 3)
    feeds = random_feeds(model, rng) | ({"more": np.zeros((2, 1, 9, 8), np.float32)} if ir_version > 3 else {})
    np.testing.assert_allclose(judge(folded, feeds)["z"], judge(source, feeds)["z"], atol=1e-5)


def without_defaults(model):
    """The same network, whose initializers are no inputs."""
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    constants = {t.name for t in plain.graph.initializer}
    inputs = [i for i in plain.graph.input if i.name not in constants]
    del plain.graph.input[:]
    plain.graph.input.extend(inputs)
    return plain


def test_data_for_constants_is_an_error(crease, rng, tmp_path):
    model = with_defaults(rng)
    source, folded = save(model, tmp_path / "in.onnx"), str(tmp_path / "out.onnx")
    feeds = random_feeds(model, rng)
    np.savez(tmp_path / "x.npz", **feeds)
    np.savez(tmp_path / "all.npz", bn_gamma=np.zeros(5, np.float32), unknown=np.zeros(1), **feeds)
    np.save(tmp_path / "g.npy", np.zeros(5, np.float32))
    crease("run", source, "--input", tmp_path / "x.npz")
    for command in (["run", source], ["fold", source, "-o", folded], ["diff", source, source]):
        for data in ([tmp_path / "all.npz"], [tmp_path / "x.npz", f"bn_gamma={tmp_path}/g.npy"]):
            given = [word for path in data for word in ("--input", path)]
            error = crease(*command, *given, expect=BAD_INPUT).stderr
            assert "bn_gamma" in error and "initializer" in error, error
    # In the second network alone, too.
    plain = save(without_defaults(model), tmp_path / "plain.onnx")
    error = crease("diff", plain, source, "--input", tmp_path / "all.npz", expect=BAD_INPUT).stderr
    assert "bn_gamma" in error and "initializer" in error, error
    # Without its initializer it is an input as any other.
    del model.graph.initializer[[t.name for t in model.graph.initializer].index("bn_gamma")]
    feeds["bn_gamma"] = np.zeros(5, np.float32)
    got = crease.run(save(model, tmp_path / "given.onnx"), feeds)
    np.testing.assert_allclose(got["z"], judge(model, feeds)["z"], atol=1e-5)


def test_names_that_are_no_inputs(crease, rng, tmp_path):
    model = conv_bn_relu(rng)
    source = save(model, tmp_path / "in.onnx")
    np.savez(tmp_path / "x.npz", **random_feeds(model, rng))
    np.save(tmp_path / "a.npy", np.zeros(5, np.float32))
    for name in ("nonsense", "c", "bn_gamma"):
        error = crease("run", source, "--input", tmp_path / "x.npz", "--input", f"{name}={tmp_path}/a.npy",
                       expect=BAD_INPUT).stderr
        assert f"'{name}'" in error and "it has 'x'" in error, error
