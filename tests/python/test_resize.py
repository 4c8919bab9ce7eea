# SPDX-License-Identifier: Apache-2.0
"""Resize takes the pixels that ONNX Runtime takes: every size from 1 to 40 to every other, in every mode.

One network has a node for each pair of sizes. Where its inputs are constants, the definition in double precision runs, else
kernels do.
"""
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from helpers import judge, save, tensor

SIZES = range(1, 41)
COORDINATES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric",
               "tf_half_pixel_for_nn"]
ROUNDINGS = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
OPSETS = {"half_pixel_symmetric": 19, "tf_half_pixel_for_nn": 11}


def pairs(upwards=False):
    """(from, to, scale), where the scale gives the target, or one less, and at least a pixel."""
    for source in SIZES:
        for target in SIZES:
            scale = np.float32(target / source)
            if int(np.float32(source) * scale) > 0 and not (upwards and target < source):
                yield source, target, scale


def network(operator, opset, by, constant=False, **attributes):
    """(model, feeds): outputs y{from}_{to}. Pixels are squares, so that none looks like another or like a mean of two."""
    upsample = operator == "Upsample"
    weights = [tensor("none", np.zeros(0))]
    nodes, outputs = [], []
    for source, target, scale in pairs(upwards=upsample):
        name = f"{source}_{target}"
        if by == "sizes":
            weights.append(tensor(f"s{name}", [1, 1, 1, target], np.int64))
            slots = ["none", "none" if opset < 13 else "", f"s{name}"]
        else:
            weights.append(tensor(f"s{name}", [1, 1, 1, scale]))
            slots = [f"s{name}"] if opset < 11 else ["none", f"s{name}"]
        nodes.append(helper.make_node(operator, [f"x{source}", *slots], [f"y{name}"], **attributes))
        outputs.append(helper.make_tensor_value_info(f"y{name}", TensorProto.FLOAT, None))
    feeds = {f"x{n}": np.square(np.arange(n, dtype=np.float32)).reshape(1, 1, 1, n) for n in SIZES}
    inputs = [helper.make_tensor_value_info(k, TensorProto.FLOAT, v.shape) for k, v in feeds.items()]
    if constant:
        weights += [tensor(k, v) for k, v in feeds.items()]
        inputs, feeds = [helper.make_tensor_value_info("unused", TensorProto.FLOAT, [1])], {"unused": np.zeros(1, np.float32)}
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), feeds


def compare(crease, path, model, feeds, tolerance=0.0, want=None):
    got = crease.run(save(model, path), feeds)
    want = want or judge(model, feeds)
    assert got.keys() == want.keys()
    wrong = [name for name in want if got[name].shape != want[name].shape
             or not np.allclose(got[name], want[name], rtol=tolerance, atol=tolerance * 40**2)]
    assert not wrong, f"{len(wrong)} of {len(want)}: {wrong[:10]}"


def torch_pixels(size, output):
    """Those of torch.nn.functional.interpolate(mode="nearest", size=output), compared with torch 2.13."""
    step = np.float32(size) / np.float32(output)
    return np.minimum((np.arange(output, dtype=np.float32) * step).astype(np.int64), size - 1)


@pytest.mark.parametrize("size, output", [(2, 82), (3, 123), (7, 205), (11, 253), (41, 123), (199, 82)])
def test_nearest_as_torch(crease, tmp_path, size, output):
    x = np.arange(size, dtype=np.float32).reshape(1, 1, 1, size)
    node = helper.make_node("Resize", ["x", "none", "none2", "n"], ["y"], mode="nearest", nearest_mode="floor",
                            coordinate_transformation_mode="asymmetric")
    node.input[1] = node.input[2] = ""
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
                              [helper.make_tensor("n", TensorProto.INT64, [4], [1, 1, 1, output])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    compare(crease, tmp_path / "m.onnx", model, {"x": x}, want={"y": torch_pixels(size, output).reshape(1, 1, 1, output)})


@pytest.mark.parametrize("constant", [False, True], ids=["kernel", "definition"])
@pytest.mark.parametrize("by", ["scales", "sizes"])
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_nearest(crease, tmp_path, coordinates, by, constant):
    for rounding in ROUNDINGS:
        model, feeds = network("Resize", OPSETS.get(coordinates, 17), by, constant, mode="nearest",
                               coordinate_transformation_mode=coordinates, nearest_mode=rounding)
        want = None
        if by == "sizes" and (coordinates, rounding) == ("asymmetric", "floor"):
            # What PyTorch exports: its own pixels, which ONNX Runtime misses for 48 pairs.
            want = {f"y{i}_{n}": np.square(torch_pixels(i, n)).reshape(1, 1, 1, n) for i, n, _ in pairs()}
        compare(crease, tmp_path / "m.onnx", model, feeds, want=want)


@pytest.mark.parametrize("operator, opset", [("Upsample", 9), ("Resize", 10)])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_old_forms(crease, tmp_path, operator, opset, mode):
    model, feeds = network(operator, opset, "scales", mode=mode)
    compare(crease, tmp_path / "m.onnx", model, feeds, tolerance=0 if mode == "nearest" else 1e-6)


@pytest.mark.parametrize("by", ["scales", "sizes"])
@pytest.mark.parametrize("coordinates", [c for c in COORDINATES if c != "tf_half_pixel_for_nn"])
@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_weights(crease, tmp_path, mode, coordinates, by):
    model, feeds = network("Resize", OPSETS.get(coordinates, 17), by, mode=mode, coordinate_transformation_mode=coordinates)
    compare(crease, tmp_path / "m.onnx", model, feeds, tolerance=3e-6)
