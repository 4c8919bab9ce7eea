# SPDX-License-Identifier: Apache-2.0
"""Names of what `crease fold` adds: no two nodes may have one, and no two values, those in subgraphs included."""
import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from helpers import BAD_INPUT, conv_bn_relu, judge, random_feeds, save, worst_error


def parsed(text, constants, opset=17):
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> g {text}')
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    return model


def weights(rng, *shape):
    return rng.normal(0, 0.5, shape).astype(np.float32)


def batchnorm(rng, channels):
    positive = {name: rng.uniform(0.5, 2, channels).astype(np.float32) for name in "sv"}
    return {**positive, "b": weights(rng, channels), "m": weights(rng, channels)}


def quantized(rng):
    integers = {name: rng.integers(-127, 127, (3, 3, 1, 1)).astype(np.int8) for name in ("q1", "q2")}
    return {**integers, "qs": rng.uniform(0.001, 0.01, 3).astype(np.float32), **batchnorm(rng, 3)}


def two_quantized_convs(rng):
    return parsed("""(float[2,3,6,6] x) => (float[2,3,6,6] z) {
        d1 = DequantizeLinear<axis: int = 0>(q1, qs)  y1 = Conv(x, d1)  n1 = BatchNormalization(y1, s, b, m, v)  r = Relu(n1)
        d2 = DequantizeLinear<axis: int = 0>(q2, qs)  y2 = Conv(r, d2)  z = BatchNormalization(y2, s, b, m, v) }""",
                  quantized(rng))


def shared_quantized_weights(rng):
    constants = quantized(rng)
    del constants["q2"]
    return parsed("""(float[2,3,6,6] x) => (float[2,3,6,6] z) {
        d = DequantizeLinear<axis: int = 0>(q1, qs)  y1 = Conv(x, d)  n1 = BatchNormalization(y1, s, b, m, v)  r = Relu(n1)
        y2 = Conv(r, d)  z = BatchNormalization(y2, s, b, m, v) }""", constants)


def two_inception_blocks(rng):
    block = """{0} = Conv({1}, w{2})  q{2} = MaxPool<kernel_shape = [3, 3]>({1})  u{2} = Concat<axis = 1>({0}, q{2})
        r{2} = BatchNormalization(u{2}, s, b, m, v)  {3} = Relu(r{2}) """
    body = block.format("y1", "x", 1, "h") + "h1 = Conv(h, w3) " + block.format("y2", "h1", 2, "z")
    return parsed("(float[2,4,9,9] x) => (float[N,12,H,W] z) {" + body + "}",
                  {"w1": weights(rng, 8, 4, 3, 3), "w2": weights(rng, 8, 4, 3, 3), "w3": weights(rng, 4, 12, 1, 1),
                   **batchnorm(rng, 12)})


def maps_over_the_last_axis(rng):
    return parsed("""(float[2,5,4] x) => (float[2,5,4] z) {
        a = Sigmoid(x)  b = Mul(a, s)  c = Add(b, t)  d = Mul(c, s)  e = Add(d, t)
        f = Sigmoid(e)  h = Mul(f, s)  i = Add(h, t)  j = Mul(i, s)  k = Add(j, t)  z = Sigmoid(k) }""",
                  {"s": weights(rng, 4), "t": weights(rng, 4)})


def one_linear_twice(rng):
    return parsed("""(float[2,5,4] x) => (float[2,4,5] z) {
        y1 = MatMul(x, w)  t1 = Transpose<perm = [0, 2, 1]>(y1)  n1 = BatchNormalization(t1, s, b, m, v)  r = Relu(n1)
        t = Transpose<perm = [0, 2, 1]>(r)  y2 = MatMul(t, w)  t2 = Transpose<perm = [0, 2, 1]>(y2)
        z = BatchNormalization(t2, s, b, m, v) }""", {"w": weights(rng, 4, 4), **batchnorm(rng, 4)})


NETWORKS = [two_quantized_convs, shared_quantized_weights, two_inception_blocks, maps_over_the_last_axis, one_linear_twice]


def check(crease, model, folder):
    """Folds; what comes out is valid, loads in onnxruntime, and computes the same."""
    feeds = random_feeds(model, np.random.default_rng(1))
    path = crease.fold(save(model, folder / "in.onnx"), str(folder / "out.onnx"))
    onnx.checker.check_model(path, full_check=True)
    assert worst_error(judge(path, feeds), judge(model, feeds)) <= 1e-4
    return onnx.load(path)


@pytest.mark.parametrize("named", ["all", "none", "like what folding adds"])
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.__name__)
def test_nodes(crease, rng, tmp_path, network, named):
    model = network(rng)
    suffixes = ["", "_folded", "_add", "_branch1", "_1"]
    for i, node in enumerate(model.graph.node):
        if named == "all":
            node.name = f"{node.op_type}_{i}"
        elif named != "none":
            node.name = f"n{i // len(suffixes)}{suffixes[i % len(suffixes)]}"
    out = check(crease, model, tmp_path)
    names = [node.name for node in out.graph.node if node.name]
    assert len(set(names)) == len(names), names
    kept = [[n.name for n in graph.node if n.op_type in ("Relu", "Sigmoid", "MaxPool", "Concat", "MatMul")]
            for graph in (out.graph, model.graph)]
    assert kept[0] == kept[1]


IF = """(float[2,3,6,6] x, bool c) => (float[2,4,6,6] z) {
    y = Conv(x, w)  n = BatchNormalization(y, s, b, m, v)
    z = If(c)<then_branch = then () => (float[2,4,6,6] o) { %s },
              else_branch = other () => (float[2,4,6,6] e) { e = Neg(n) }> }"""
BRANCHES = {
    "nodes": "w_folded = Neg(n)  w_bias = Neg(w_folded)  o = Neg(w_bias)",
    "initializers": "o = Mul(n, w_folded)",
    "nested": """o = If(c)<then_branch = inner () => (float[2,4,6,6] i) { w_folded = Neg(n)  i = Neg(w_folded) },
        else_branch = last () => (float[2,4,6,6] l) { w_bias = Neg(n)  l = Neg(w_bias) }>""",
}


@pytest.mark.parametrize("branch", BRANCHES)
def test_values_in_subgraphs(crease, rng, tmp_path, branch):
    model = parsed(IF % BRANCHES[branch], {"w": weights(rng, 4, 3, 1, 1), **batchnorm(rng, 4)})
    if branch == "initializers":
        then = model.graph.node[-1].attribute[0].g
        then.initializer.append(numpy_helper.from_array(np.float32(2), "w_folded"))
    source = save(model, tmp_path / "in.onnx")
    onnx.checker.check_model(source, full_check=True)
    path = crease.fold(source, str(tmp_path / "out.onnx"))
    onnx.checker.check_model(path, full_check=True)
    assert [node.op_type for node in onnx.load(path).graph.node] == ["Conv", "If"]
    x = rng.standard_normal((2, 3, 6, 6)).astype(np.float32)
    for condition in (False, True):
        feeds = {"x": x, "c": np.array(condition)}
        assert worst_error(judge(path, feeds), judge(source, feeds)) <= 1e-5


def test_values_of_stale_types(crease, rng, tmp_path):
    model = conv_bn_relu(rng)
    model.graph.value_info.append(helper.make_tensor_value_info("w_folded", TensorProto.FLOAT, [1, 2]))
    out = check(crease, model, tmp_path)
    assert [node.op_type for node in out.graph.node] == ["Conv", "Relu"]


def test_errors_name_the_file(crease, rng, tmp_path):
    (tmp_path / "models").mkdir()
    save(conv_bn_relu(rng), tmp_path / "models" / "good.onnx")
    bad = parsed("(float[1,3] x) => (float[1,5] y) { y = Pad<mode = \"round\">(x, pads) }",
                 {"pads": np.array([0, 1, 0, 1], np.int64)})
    save(bad, tmp_path / "models" / "bad.onnx")
    done = crease("fold", tmp_path / "models", "-o", tmp_path / "out", expect=BAD_INPUT)
    assert f"crease: error: {tmp_path}/models/bad.onnx: Pad (makes 'y'): attribute 'mode'" in done.stderr
    assert (tmp_path / "out" / "good.onnx").exists()
    one = crease("fold", tmp_path / "models" / "bad.onnx", "-o", tmp_path / "one.onnx", expect=BAD_INPUT)
    assert one.stderr == done.stderr
    assert crease("lint", tmp_path / "models" / "bad.onnx", expect=BAD_INPUT).stderr == done.stderr
