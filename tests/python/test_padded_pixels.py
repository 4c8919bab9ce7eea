# SPDX-License-Identifier: Apache-2.0
"""Every kind of operator on maps of 256, 512 and 1,024 channels, whose pixels the plan keeps a line further apart
(runtime/plan.h, OwnPitch): as a source, as a result, and through views."""
import numpy as np
import onnx
import pytest
from onnx import helper

from helpers import batchnorm_node, batchnorm_tensors, judge, make_model, tensor, worst_error

N, H, W = 2, 6, 5


def ints(name, values):
    return tensor(name, values, np.int64)


def conv(rng, x, y, channels, filters, kernel=1, group=1, **attributes):
    weights = tensor(f"{y}_w", rng.normal(0, (channels // group * kernel**2) ** -0.5, (filters, channels // group, kernel, kernel)))
    pads = [kernel // 2] * 4
    return helper.make_node("Conv", [x, f"{y}_w"], [y], group=group, pads=pads, **attributes), weights


# name: (channels of the map, what is done with it: nodes from "m" to "y", initializers)
def cases(rng):
    node = helper.make_node
    for channels in (256, 512, 1024):
        c = channels
        yield f"pointwise_{c}", c, *zip(conv(rng, "m", "y", c, 40))
        yield f"spatial_{c}", c, *zip(conv(rng, "m", "y", c, 24, 3))
        yield f"spatial_stride_{c}", c, *zip(conv(rng, "m", "y", c, 24, 3, strides=[2, 2]))
        yield f"depthwise_{c}", c, *zip(conv(rng, "m", "y", c, c, 3, c))
        yield f"groups_of_8_{c}", c, *zip(conv(rng, "m", "y", c, c, 3, c // 8))
        yield f"groups_of_32_{c}", c, *zip(conv(rng, "m", "y", c, c, 3, c // 32))
        yield f"transposed_{c}", c, [node("ConvTranspose", ["m", "w"], ["y"], strides=[2, 2])], \
            [tensor("w", rng.normal(0, c**-0.5, (c, 16, 2, 2)))]
        for op in ("Relu", "HardSwish", "Sigmoid", "Tanh", "GlobalAveragePool", "GlobalMaxPool"):
            yield f"{op}_{c}", c, [node(op, ["m"], ["y"])], []
        yield f"softmax_{c}", c, [node("Softmax", ["m"], ["y"], axis=1)], []
        yield f"scale_{c}", c, [node("Mul", ["m", "w"], ["y"])], [tensor("w", rng.normal(0, 1, (1, c, 1, 1)))]
        yield f"rows_{c}", c, [node("Add", ["m", "w"], ["y"])], [tensor("w", rng.normal(0, 1, (1, 1, H, W)))]
        yield f"sum_{c}", c, [node("Relu", ["m"], ["r"]), node("Neg", ["m"], ["n"]), node("Add", ["r", "n"], ["y"])], []
        yield f"pool_{c}", c, [node("MaxPool", ["m"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])], []
        yield f"average_{c}", c, [node("AveragePool", ["m"], ["y"], kernel_shape=[2, 2])], []
        yield f"mean_{c}", c, [node("ReduceMean", ["m"], ["y"], axes=[2], keepdims=0)], []
        yield f"channel_sum_{c}", c, [node("ReduceSum", ["m", "a"], ["y"])], [ints("a", [1])]
        yield f"resize_{c}", c, [node("Resize", ["m", "", "s"], ["y"], mode="linear")], [tensor("s", [1, 1, 2, 2])]
        yield f"pad_{c}", c, [node("Pad", ["m", "p"], ["y"])], [ints("p", [0, 0, 1, 2, 0, 0, 2, 1])]
        yield f"concat_{c}", c, [node("Relu", ["m"], ["r"]), node("Concat", ["r", "m"], ["y"], axis=1)], []
        yield f"concat_rows_{c}", c, [node("Relu", ["m"], ["r"]), node("Concat", ["r", "m"], ["y"], axis=2)], []
        yield f"split_{c}", c, [node("Split", ["m"], ["a", "b"], axis=1), node("Sub", ["a", "b"], ["y"])], []
        yield f"slice_{c}", c, [node("Slice", ["m", "b", "e", "a"], ["s"]), node("Relu", ["s"], ["y"])], \
            [ints("b", [3]), ints("e", [100]), ints("a", [1])]
        yield f"to_end_{c}", c, [node("Transpose", ["m"], ["y"], perm=[0, 2, 3, 1])], []
        yield f"tokens_{c}", c, [node("Reshape", ["m", "s"], ["r"]), node("Transpose", ["r"], ["y"], perm=[0, 2, 1])], \
            [ints("s", [0, 0, -1])]
        yield f"flatten_{c}", c, [node("Flatten", ["m"], ["f"]), node("Gemm", ["f", "w"], ["y"])], \
            [tensor("w", rng.normal(0, 0.01, (c * H * W, 7)))]
        yield f"shuffle_{c}", c, [node("Reshape", ["m", "s"], ["r"]), node("Transpose", ["r"], ["t"], perm=[0, 2, 1, 3, 4]),
                                  node("Reshape", ["t", "u"], ["y"])], \
            [ints("s", [N, 2, c // 2, H, W]), ints("u", [N, c, H, W])]
        yield f"depth_to_space_{c}", c, [node("DepthToSpace", ["m"], ["y"], blocksize=2)], []
        yield f"batch_norm_{c}", c, [batchnorm_node("m", "b"), node("Tanh", ["b"], ["y"])], batchnorm_tensors(c, rng)
        yield f"batch_statistics_{c}", c, [batchnorm_node("m", "y", training_mode=1)], batchnorm_tensors(c, rng)


CASES = list(cases(np.random.default_rng(1)))


@pytest.mark.parametrize("name, channels, nodes, initializers", CASES, ids=[case[0] for case in CASES])
def test_wide_map(crease, tmp_path, name, channels, nodes, initializers):
    rng = np.random.default_rng(2)
    first, weights = conv(rng, "x", "c", 8, channels, 3)
    # Tanh is not a bound, so that it does not hide what it reads.
    nodes = [first, helper.make_node("Tanh", ["c"], ["m"]), *nodes]
    model = make_model(nodes, [weights, *initializers], {"x": [N, 8, H, W]}, {"y": None, "m": None})
    path = str(tmp_path / "m.onnx")
    onnx.save(model, path)
    feeds = {"x": rng.normal(0, 1, (N, 8, H, W)).astype(np.float32)}
    want = judge(model, feeds)
    for flags in ([], ["--no-fold"]):
        assert worst_error(crease.run(path, feeds, "--no-tuning", *flags), want) < 1e-4
