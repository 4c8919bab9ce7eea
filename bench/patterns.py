# SPDX-License-Identifier: Apache-2.0
"""One small network for each way in which an affine map per channel can meet its neighbours.

`PATTERNS` is what bench/pattern_table.py runs every folding tool on, and tests/python/test_patterns.py runs Crease on.
Each has `best`: how many affine nodes an exact folder must leave in the file. Where that is as many as there were, the
pattern is a trap: folding by the look of it changes the function.
"""
import dataclasses
import zlib
from typing import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


class Net:
    """Builds one network. Methods add a node and return its output's name."""

    def __init__(self, seed=0, opset=17, ir_version=8):
        self.rng = np.random.default_rng(seed)
        self.opset, self.ir_version = opset, ir_version
        self.nodes, self.initializers, self.inputs, self.outputs = [], [], [], []
        self.names = 0

    def name(self, stem):
        self.names += 1
        return f"{stem}{self.names}"

    def input(self, *shape, name="x", elem_type=FLOAT):
        self.inputs.append(helper.make_tensor_value_info(name, elem_type, shape))
        return name

    def const(self, array, dtype=np.float32, stem="const"):
        name = self.name(stem)
        self.initializers.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def ints(self, *values):
        return self.const(values, np.int64, "ints")

    def op(self, op_type, *inputs, outputs=1, **attributes):
        names = [self.name("v") for _ in range(outputs)]
        self.nodes.append(helper.make_node(op_type, list(inputs), names, name=self.name(op_type.lower()), **attributes))
        return names[0] if outputs == 1 else names

    def normal(self, *shape):
        return self.rng.normal(0, 0.4, shape)

    def conv(self, x, c_in, c_out, kernel=3, rank=2, bias=True, weight=None, group=1, kind="Conv", **attributes):
        shape = (c_out, c_in // group) if kind == "Conv" else (c_in, c_out // group)
        weight = weight or self.const(self.normal(*shape, *[kernel] * rank), stem="weight")
        extra = [self.const(self.normal(c_out), stem="bias")] if bias else []
        return self.op(kind, x, weight, *extra, group=group, **attributes)

    def gemm(self, x, k, m, **attributes):
        shape = (m, k) if attributes.get("transB") else (k, m)
        return self.op("Gemm", x, self.const(self.normal(*shape), stem="weight"), self.const(self.normal(m), stem="bias"), **attributes)

    def statistics(self, c, shift=True, sign=1):
        """gamma, beta, mean, var; `sign` 0: both signs. Without shift the map is a scale alone."""
        gamma = self.rng.uniform(0.5, 1.5, c)
        if sign == 0:
            gamma *= np.where(np.arange(c) % 2, 1, -1)
        zero = np.zeros(c)
        return gamma, self.rng.normal(0, 0.5, c) if shift else zero, self.rng.normal(0, 0.5, c) if shift else zero, self.rng.uniform(0.3, 2, c)

    def bn(self, x, c, shift=True, sign=1, dtype=np.float32, values=None, names=None, **attributes):
        names = names or [self.const(v, dtype, stem) for v, stem in
                          zip(values or self.statistics(c, shift, sign), ("gamma", "beta", "mean", "var"))]
        outputs = 3 if attributes.get("training_mode") else 1
        y = self.op("BatchNormalization", x, *names, outputs=outputs, **attributes)
        return y[0] if outputs == 3 else y

    def per_channel(self, c, rank=4):
        return self.const(self.rng.uniform(0.5, 1.5, (c, *[1] * (rank - 2))))

    def output(self, *names):
        self.outputs += names

    def model(self):
        graph_inputs = list(self.inputs)
        if self.ir_version < 4:
            graph_inputs += [helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in self.initializers]
        graph = helper.make_graph(self.nodes, "pattern", graph_inputs,
                                  [helper.make_empty_tensor_value_info(n) for n in self.outputs], self.initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=self.ir_version,
                                  producer_name="crease-patterns")
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        del model.graph.output[:]
        model.graph.output.extend(inferred.graph.output)
        onnx.checker.check_model(model)
        return model


@dataclasses.dataclass
class Pattern:
    name: str
    group: str
    best: int
    build: Callable
    opset: int = 17
    ir_version: int = 8

    def model(self):
        net = Net(zlib.crc32(self.name.encode()), self.opset, self.ir_version)
        self.build(net)
        return net.model()


PATTERNS = []


def pattern(group, name, best=0, **options):
    """Registers a builder: it gets a Net, whose outputs it declares (or returns the single one)."""
    def register(build):
        def run(net):
            out = build(net)
            if out is not None:
                net.output(out)
        PATTERNS.append(Pattern(name, group, best, run, **options))
        return build
    return register


def image(n, c=4, size=8):
    return n.input("N", c, size, size)


# ---------------------------------------------------------------------------------------------------------------------
BACK = "backward, into what produces the value"


def conv_bn(name, c_in=4, c_out=6, rank=2, best=0, **options):
    @pattern(BACK, name, best)
    def build(n):
        return n.bn(n.conv(n.input("N", c_in, *[8] * rank), c_in, c_out, rank=rank, **options), c_out)


conv_bn("Conv -> BN")
conv_bn("Conv without bias -> BN", bias=False)
conv_bn("Conv, strides, dilations, SAME_UPPER -> BN", strides=[2, 1], auto_pad="SAME_UPPER")
conv_bn("Conv, 2 groups -> BN", group=2)
conv_bn("Conv, depthwise x2 -> BN", c_out=8, group=4)
conv_bn("Conv 1d -> BN", rank=1)
conv_bn("Conv 3d -> BN", rank=3)
conv_bn("ConvTranspose -> BN", kind="ConvTranspose", strides=[2, 2])
conv_bn("ConvTranspose, 2 groups -> BN", kind="ConvTranspose", group=2)
conv_bn("ConvTranspose, depthwise, no bias -> BN", c_out=4, kind="ConvTranspose", group=4, bias=False, strides=[2, 2])
conv_bn("ConvTranspose 1d -> BN", rank=1, kind="ConvTranspose")


@pattern(BACK, "Conv -> BN with a dead channel (scale 0)")
def _(n):
    gamma, *rest = n.statistics(6)
    gamma[2] = 0
    return n.bn(n.conv(image(n), 4, 6), 6, values=[gamma, *rest])


@pattern(BACK, "Conv -> BN with scales of both signs")
def _(n):
    return n.bn(n.conv(image(n), 4, 6), 6, sign=0)


@pattern(BACK, "Gemm -> BN")
def _(n):
    return n.bn(n.gemm(n.input("N", 5), 5, 7), 7)


@pattern(BACK, "Gemm, transB, alpha, beta -> BN")
def _(n):
    return n.bn(n.gemm(n.input("N", 5), 5, 7, transB=1, alpha=0.5, beta=3.0), 7)


@pattern(BACK, "Gemm with a scalar C -> BN")
def _(n):
    return n.bn(n.op("Gemm", n.input("N", 5), n.const(n.normal(5, 7)), n.const(0.7)), 7)


@pattern(BACK, "Gemm, transA -> BN")
def _(n):
    return n.bn(n.op("Gemm", n.input(5, "N"), n.const(n.normal(5, 7)), transA=1), 7)


@pattern(BACK, "MatMul rank 2 -> BN")
def _(n):
    return n.bn(n.op("MatMul", n.input("N", 5), n.const(n.normal(5, 7))), 7)


@pattern(BACK, "MatMul rank 2 -> Add bias -> BN")
def _(n):
    return n.bn(n.op("Add", n.op("MatMul", n.input("N", 5), n.const(n.normal(5, 7))), n.const(n.normal(7))), 7)


@pattern(BACK, "MatMul rank 3 -> Transpose -> BN 1d")
def _(n):
    y = n.op("MatMul", n.input("N", 6, 5), n.const(n.normal(5, 7)))
    return n.bn(n.op("Transpose", y, perm=[0, 2, 1]), 7)


@pattern(BACK, "constant x MatMul rank 3 -> BN 1d (channels are its rows)")
def _(n):
    return n.bn(n.op("MatMul", n.const(n.normal(7, 6)), n.input("N", 6, 5)), 7)


@pattern(BACK, "trap: MatMul rank 3 by constant -> BN on the other axis", 1)
def _(n):
    return n.bn(n.op("MatMul", n.input("N", 5, 5), n.const(n.normal(5, 5))), 5)


# ---------------------------------------------------------------------------------------------------------------------
GUISE = "other guises of the affine"


@pattern(GUISE, "Conv -> Mul -> Add per channel")
def _(n):
    return n.op("Add", n.op("Mul", n.conv(image(n), 4, 6), n.per_channel(6)), n.per_channel(6))


@pattern(GUISE, "Conv -> Sub -> Div per channel, (1,C,1,1)")
def _(n):
    c = [n.const(n.rng.uniform(0.5, 1.5, (1, 6, 1, 1))) for _ in range(2)]
    return n.op("Div", n.op("Sub", n.conv(image(n), 4, 6), c[0]), c[1])


@pattern(GUISE, "Conv -> constant - x")
def _(n):
    return n.op("Sub", n.per_channel(6), n.conv(image(n), 4, 6))


@pattern(GUISE, "Conv -> Mul, Add by scalars, constant first")
def _(n):
    return n.op("Add", n.const(0.3), n.op("Mul", n.const(1.7), n.conv(image(n), 4, 6)))


@pattern(GUISE, "Conv -> decomposed BN with Sqrt")
def _(n):
    var = n.op("Sqrt", n.op("Add", n.per_channel(6), n.const(1e-5)))
    y = n.op("Div", n.op("Sub", n.conv(image(n), 4, 6), n.per_channel(6)), var)
    return n.op("Add", n.op("Mul", y, n.per_channel(6)), n.per_channel(6))


@pattern(GUISE, "Conv -> decomposed BN with Pow or Reciprocal, Unsqueezed parameters")
def _(n):
    raw = lambda: n.op("Unsqueeze", n.const(n.rng.uniform(0.5, 1.5, 6)), n.ints(1, 2))
    inverse = n.op("Reciprocal", n.op("Pow", n.op("Add", raw(), n.const(1e-5)), n.const(0.5)))
    scale = n.op("Mul", raw(), inverse)
    return n.op("Add", n.op("Mul", n.conv(image(n), 4, 6), scale), n.op("Sub", raw(), n.op("Mul", raw(), scale)))


@pattern(GUISE, "Conv -> BN -> BN")
def _(n):
    return n.bn(n.bn(n.conv(image(n), 4, 6), 6), 6)


@pattern(GUISE, "BN -> BN -> Sigmoid (no one absorbs: merged)", 1)
def _(n):
    return n.op("Sigmoid", n.bn(n.bn(image(n), 4), 4))


@pattern(GUISE, "BN -> Mul -> Add -> Sigmoid (merged)", 2)  # a scale and a shift, or one BatchNormalization
def _(n):
    return n.op("Sigmoid", n.op("Add", n.op("Mul", n.bn(image(n), 4), n.per_channel(4)), n.per_channel(4)))


@pattern(GUISE, "Conv -> Identity -> BN")
def _(n):
    return n.bn(n.op("Identity", n.conv(image(n), 4, 6)), 6)


@pattern(GUISE, "Conv -> Dropout -> BN")
def _(n):
    return n.bn(n.op("Dropout", n.conv(image(n), 4, 6)), 6)


@pattern(GUISE, "Conv -> Cast to double -> BN -> Cast to float")
def _(n):
    x = n.op("Cast", n.conv(image(n), 4, 6), to=TensorProto.DOUBLE)
    return n.op("Cast", n.bn(x, 6, dtype=np.float64), to=FLOAT)


@pattern(GUISE, "trap: Conv -> Mul along the width (width = channels)", 1)
def _(n):
    return n.op("Mul", n.conv(image(n), 4, 6), n.const(n.rng.uniform(0.5, 1.5, 6)))


@pattern(GUISE, "trap: Conv -> Add of a full map (1,C,H,W)", 1)
def _(n):
    return n.op("Add", n.conv(image(n), 4, 6), n.const(n.normal(1, 6, 6, 6)))


@pattern(GUISE, "trap: Conv -> Mul per sample (N,C,1,1)", 1)
def _(n):
    return n.op("Mul", n.conv(n.input(2, 4, 8, 8), 4, 6), n.const(n.rng.uniform(0.5, 1.5, (2, 6, 1, 1))))


@pattern(GUISE, "trap: Conv -> Mul that broadcasts one channel to six", 1)
def _(n):
    return n.op("Mul", n.conv(image(n), 4, 1), n.per_channel(6))


@pattern(GUISE, "trap: Conv -> InstanceNormalization", 1)
def _(n):
    return n.op("InstanceNormalization", n.conv(image(n), 4, 6), n.const(n.rng.uniform(0.5, 1.5, 6)), n.const(n.normal(6)))


# ---------------------------------------------------------------------------------------------------------------------
THROUGH = "backward, through operators that commute"


@pattern(THROUGH, "Concat of two convs -> BN")
def _(n):
    x = image(n)
    return n.bn(n.op("Concat", n.conv(x, 4, 6), n.conv(x, 4, 2), axis=1), 8)


@pattern(THROUGH, "Concat of a conv and a Relu -> BN (a part stays)", 1)
def _(n):
    x = image(n)
    return n.bn(n.op("Concat", n.conv(x, 4, 6, pads=[1] * 4), n.op("Relu", x), axis=1), 10)


@pattern(THROUGH, "Add of two convs -> BN")
def _(n):
    x = image(n)
    return n.bn(n.op("Add", n.conv(x, 4, 6), n.conv(x, 4, 6)), 6)


@pattern(THROUGH, "Sum of three convs -> BN")
def _(n):
    x = image(n)
    return n.bn(n.op("Sum", n.conv(x, 4, 6), n.conv(x, 4, 6), n.conv(x, 4, 6)), 6)


@pattern(THROUGH, "trap: Add of a conv and the input -> BN", 1)
def _(n):
    x = image(n)
    return n.bn(n.op("Add", n.conv(x, 4, 4, pads=[1] * 4), x), 4)


@pattern(THROUGH, "Conv -> AveragePool -> BN")
def _(n):
    return n.bn(n.op("AveragePool", n.conv(image(n), 4, 6), kernel_shape=[2, 2], strides=[2, 2]), 6)


@pattern(THROUGH, "Conv -> AveragePool, padded, pad not counted -> BN")
def _(n):
    return n.bn(n.op("AveragePool", n.conv(image(n), 4, 6), kernel_shape=[3, 3], pads=[1] * 4), 6)


@pattern(THROUGH, "trap: Conv -> AveragePool, padded, pad counted -> BN with shift", 1)
def _(n):
    return n.bn(n.op("AveragePool", n.conv(image(n), 4, 6), kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1), 6)


@pattern(THROUGH, "Conv -> GlobalAveragePool -> BN")
def _(n):
    return n.bn(n.op("GlobalAveragePool", n.conv(image(n), 4, 6)), 6)


@pattern(THROUGH, "Conv -> MaxPool -> BN, scales > 0")
def _(n):
    return n.bn(n.op("MaxPool", n.conv(image(n), 4, 6), kernel_shape=[3, 3], pads=[1] * 4), 6)


@pattern(THROUGH, "trap: Conv -> MaxPool -> BN, scales of both signs", 1)
def _(n):
    return n.bn(n.op("MaxPool", n.conv(image(n), 4, 6), kernel_shape=[2, 2]), 6, sign=0)


def resize(name, **attributes):
    @pattern(THROUGH, name)
    def _(n):
        return n.bn(n.op("Resize", n.conv(image(n), 4, 6), "", n.const([1, 1, 2, 2]), **attributes), 6)


resize("Conv -> Resize nearest -> BN", mode="nearest")
resize("Conv -> Resize linear -> BN", mode="linear")
resize("Conv -> Resize cubic -> BN", mode="cubic")


@pattern(THROUGH, "trap: Conv -> Pad with zeros -> BN with shift", 1)
def _(n):
    return n.bn(n.op("Pad", n.conv(image(n), 4, 6), n.ints(0, 0, 1, 1, 0, 0, 1, 1)), 6)


@pattern(THROUGH, "Conv -> Pad with zeros -> BN without shift")
def _(n):
    return n.bn(n.op("Pad", n.conv(image(n), 4, 6), n.ints(0, 0, 1, 1, 0, 0, 1, 1)), 6, shift=False)


@pattern(THROUGH, "Conv -> Pad by edge -> BN")
def _(n):
    return n.bn(n.op("Pad", n.conv(image(n), 4, 6), n.ints(0, 0, 1, 1, 0, 0, 1, 1), mode="edge"), 6)


@pattern(THROUGH, "Conv -> Transpose to channels-last -> Mul -> Add")
def _(n):
    y = n.op("Transpose", n.conv(image(n), 4, 6), perm=[0, 2, 3, 1])
    return n.op("Add", n.op("Mul", y, n.const(n.rng.uniform(0.5, 1.5, 6))), n.const(n.normal(6)))


@pattern(THROUGH, "Conv -> Reshape (N,C,HW) -> BN 1d")
def _(n):
    return n.bn(n.op("Reshape", n.conv(image(n), 4, 6), n.ints(0, 6, -1)), 6)


@pattern(THROUGH, "Conv -> GlobalAveragePool -> Flatten -> BN 1d")
def _(n):
    return n.bn(n.op("Flatten", n.op("GlobalAveragePool", n.conv(image(n), 4, 6))), 6)


@pattern(THROUGH, "trap: Conv -> Flatten (C*H*W features) -> BN 1d", 1)
def _(n):
    return n.bn(n.op("Flatten", n.conv(image(n), 4, 6, kernel=7)), 24)


@pattern(THROUGH, "Gemm -> Reshape (N,C,1,1) -> BN")
def _(n):
    return n.bn(n.op("Reshape", n.gemm(n.input("N", 5), 5, 7), n.ints(-1, 7, 1, 1)), 7)


@pattern(THROUGH, "Gemm -> Reshape (N,C,2,3) -> BN")
def _(n):
    return n.bn(n.op("Reshape", n.gemm(n.input("N", 5), 5, 24), n.ints(-1, 4, 2, 3)), 4)


@pattern(THROUGH, "Gemm -> Unsqueeze -> BN 1d -> Squeeze")
def _(n):
    axes = n.ints(2)
    return n.op("Squeeze", n.bn(n.op("Unsqueeze", n.gemm(n.input("N", 5), 5, 7), axes), 7), axes)


@pattern(THROUGH, "Conv -> Slice of channels -> BN")
def _(n):
    return n.bn(n.op("Slice", n.conv(image(n), 4, 6), n.ints(2), n.ints(6), n.ints(1)), 4)


@pattern(THROUGH, "Conv -> Split -> BN on each part")
def _(n):
    a, b = n.op("Split", n.conv(image(n), 4, 6), n.ints(2, 4), outputs=2, axis=1)
    n.output(n.bn(a, 2), n.bn(b, 4))


@pattern(THROUGH, "Conv -> Split -> BN on one part only")
def _(n):
    a, b = n.op("Split", n.conv(image(n), 4, 6), n.ints(2, 4), outputs=2, axis=1)
    n.output(n.bn(a, 2), n.op("Sigmoid", b))


@pattern(THROUGH, "Conv -> channel shuffle -> BN")
def _(n):
    y = n.op("Reshape", n.conv(image(n), 4, 6), n.ints(0, 2, 3, 6, 6))
    y = n.op("Reshape", n.op("Transpose", y, perm=[0, 2, 1, 3, 4]), n.ints(0, 6, 6, 6))
    return n.bn(y, 6)


@pattern(THROUGH, "Conv -> DepthToSpace -> BN")
def _(n):
    return n.bn(n.op("DepthToSpace", n.conv(image(n), 4, 12), blocksize=2), 3)


@pattern(THROUGH, "trap: Conv -> SpaceToDepth -> BN", 1)
def _(n):
    return n.bn(n.op("SpaceToDepth", n.conv(image(n), 4, 6), blocksize=2), 24)


def activation(name, op_type, best, sign=1, shift=True, slope=False, **attributes):
    @pattern(THROUGH, name, best)
    def _(n):
        extra = [n.const(n.rng.uniform(0.1, 0.5, (6, 1, 1)))] if slope else []
        return n.bn(n.op(op_type, n.conv(image(n), 4, 6), *extra, **attributes), 6, sign=sign, shift=shift)


activation("Conv -> Relu -> BN, scales > 0, no shift", "Relu", 0, shift=False)
activation("Conv -> LeakyRelu -> BN, scales > 0, no shift", "LeakyRelu", 0, shift=False, alpha=0.2)
activation("Conv -> PRelu -> BN, scales > 0, no shift", "PRelu", 0, shift=False, slope=True)
activation("trap: Conv -> Relu -> BN with shift", "Relu", 1)
activation("trap: Conv -> Relu -> BN, scales of both signs", "Relu", 1, sign=0, shift=False)
activation("trap: Conv -> LeakyRelu -> BN with shift", "LeakyRelu", 1)


@pattern(THROUGH, "trap: Conv -> Clip(0, 6) -> BN", 1)
def _(n):
    return n.bn(n.op("Clip", n.conv(image(n), 4, 6), n.const(0), n.const(6)), 6)


@pattern(THROUGH, "trap: Conv -> Mul by a computed gate -> BN", 1)
def _(n):
    x = image(n)
    gate = n.op("Sigmoid", n.op("GlobalAveragePool", n.conv(x, 4, 6)))
    return n.bn(n.op("Mul", n.conv(x, 4, 6), gate), 6)


# ---------------------------------------------------------------------------------------------------------------------
FORWARD = "forward, into what consumes the value"


def forward_conv(name, best=0, shift=True, pre=None, c_out=6, **options):
    @pattern(FORWARD, name, best)
    def _(n):
        x = image(n)
        if pre:
            x = n.op(pre, n.conv(x, 4, 4, pads=[1] * 4))
        return n.conv(n.bn(x, 4, shift=shift), 4, c_out, **options)


forward_conv("BN -> Conv, not padded")
forward_conv("BN -> Conv, not padded, no bias", bias=False)
forward_conv("BN -> Conv, 2 groups, not padded", group=2)
forward_conv("BN -> Conv, depthwise, not padded", group=4, c_out=4)
forward_conv("BN without shift -> Conv, zero-padded", shift=False, pads=[1] * 4)
forward_conv("trap: BN with shift -> Conv, zero-padded", 1, pads=[1] * 4)
forward_conv("trap: BN with shift -> Conv, auto_pad SAME_LOWER", 1, auto_pad="SAME_LOWER")
forward_conv("Conv -> Relu -> BN -> Conv 1x1", pre="Relu", kernel=1)
forward_conv("Conv -> Sigmoid -> BN -> Conv, not padded", pre="Sigmoid")
forward_conv("trap: Conv -> Relu -> BN with shift -> Conv, zero-padded", 1, pre="Relu", pads=[1] * 4)
forward_conv("BN without shift -> ConvTranspose, kernel = stride", shift=False, kind="ConvTranspose", kernel=2, strides=[2, 2])
# Each output sees one tap, but neighbours see different ones: the shift becomes a pattern, not a bias.
forward_conv("trap: BN with shift -> ConvTranspose, kernel = stride", 1, kind="ConvTranspose", kernel=2, strides=[2, 2])
forward_conv("trap: BN -> ConvTranspose, overlapping taps", 1, kind="ConvTranspose", kernel=3)


@pattern(FORWARD, "Sub mean -> Div std -> Conv, not padded (input normalisation)")
def _(n):
    return n.conv(n.op("Div", n.op("Sub", image(n, 3), n.per_channel(3)), n.per_channel(3)), 3, 6)


@pattern(FORWARD, "BN -> Gemm")
def _(n):
    return n.gemm(n.bn(n.input("N", 5), 5), 5, 7, transB=1, alpha=0.5)


@pattern(FORWARD, "BN -> MatMul rank 2")
def _(n):
    return n.op("MatMul", n.bn(n.input("N", 5), 5), n.const(n.normal(5, 7)))


@pattern(FORWARD, "Relu -> BN -> GlobalAveragePool -> Flatten -> Gemm")
def _(n):
    y = n.bn(n.op("Relu", n.conv(image(n), 4, 6)), 6)
    return n.gemm(n.op("Flatten", n.op("GlobalAveragePool", y)), 6, 3)


@pattern(FORWARD, "Relu -> BN -> Flatten (C*H*W) -> Gemm")
def _(n):
    return n.gemm(n.op("Flatten", n.bn(n.op("Relu", n.conv(image(n), 4, 6)), 6)), 216, 3)


@pattern(FORWARD, "BN -> MaxPool -> Conv, scales > 0")
def _(n):
    return n.conv(n.op("MaxPool", n.bn(image(n), 4), kernel_shape=[2, 2]), 4, 6)


@pattern(FORWARD, "BN without shift -> Relu -> Conv, scales > 0")
def _(n):
    return n.conv(n.op("Relu", n.bn(image(n), 4, shift=False)), 4, 6)


@pattern(FORWARD, "trap: BN -> Relu -> Conv (pre-activation)", 1)
def _(n):
    return n.conv(n.op("Relu", n.bn(image(n), 4)), 4, 6)


@pattern(FORWARD, "BN -> two convs, not padded")
def _(n):
    y = n.bn(image(n), 4)
    n.output(n.conv(y, 4, 6), n.conv(y, 4, 2, kernel=1))


@pattern(FORWARD, "trap: BN -> conv, and the BN's value is an output", 1)
def _(n):
    y = n.bn(image(n), 4)
    n.output(n.conv(y, 4, 6), y)


@pattern(FORWARD, "Relu -> BN, Concat with another -> Conv 1x1")
def _(n):
    x = image(n)
    return n.conv(n.op("Concat", n.bn(n.op("Relu", x), 4), x, axis=1), 8, 6, kernel=1)


# ---------------------------------------------------------------------------------------------------------------------
WHOLE = "sharing, captures, and how a file says it"


@pattern(WHOLE, "two convs share weights, each with its own BN")
def _(n):
    x, w = image(n), n.const(n.normal(6, 4, 3, 3))
    n.output(n.bn(n.conv(x, 4, 6, weight=w), 6), n.bn(n.conv(n.op("Sigmoid", x), 4, 6, weight=w), 6))


@pattern(WHOLE, "two convs share weights, one has a BN")
def _(n):
    x, w = image(n), n.const(n.normal(6, 4, 3, 3))
    n.output(n.bn(n.conv(x, 4, 6, weight=w), 6), n.conv(n.op("Sigmoid", x), 4, 6, weight=w))


@pattern(WHOLE, "a reused Conv -> BN block (the same weights and BN twice)")
def _(n):
    w, names = n.const(n.normal(4, 4, 3, 3)), [n.const(v) for v in n.statistics(4)]
    y = n.op("Relu", n.bn(n.conv(image(n), 4, 4, weight=w, bias=False), 4, names=names))
    return n.bn(n.conv(y, 4, 4, weight=w, bias=False), 4, names=names)


@pattern(WHOLE, "weights that are an If branch's as well")
def _(n):
    x, w = image(n), n.const(n.normal(6, 4, 3, 3))
    def branch(name, op_type):
        return helper.make_graph([helper.make_node(op_type, [w], [f"{name}_out"])], name, [],
                                 [helper.make_tensor_value_info(f"{name}_out", FLOAT, [6, 4, 3, 3])])
    flag = n.input(name="flag", elem_type=TensorProto.BOOL)
    other = n.op("If", flag, then_branch=branch("then", "Identity"), else_branch=branch("else", "Neg"))
    n.output(n.bn(n.conv(x, 4, 6, weight=w), 6), other)


@pattern(WHOLE, "trap: an If branch reads the conv's output", 1)
def _(n):
    y = n.conv(image(n), 4, 6)
    def branch(name, op_type):
        return helper.make_graph([helper.make_node(op_type, [y], [f"{name}_out"])], name, [],
                                 [helper.make_tensor_value_info(f"{name}_out", FLOAT, ["N", 6, 6, 6])])
    flag = n.input(name="flag", elem_type=TensorProto.BOOL)
    n.output(n.bn(y, 6), n.op("If", flag, then_branch=branch("then", "Sigmoid"), else_branch=branch("else", "Neg")))


@pattern(WHOLE, "trap: the conv's output has another consumer", 1)
def _(n):
    y = n.conv(image(n), 4, 6)
    n.output(n.bn(y, 6), n.op("Sigmoid", y))


@pattern(WHOLE, "trap: the conv's output is an output of the graph", 1)
def _(n):
    y = n.conv(image(n), 4, 6)
    n.output(n.bn(y, 6), y)


@pattern(WHOLE, "trap: BN in training mode", 1)
def _(n):
    return n.bn(n.conv(image(n), 4, 6), 6, training_mode=1)


@pattern(WHOLE, "trap: the conv's weights are an input", 1)
def _(n):
    x = image(n)
    return n.bn(n.op("Conv", x, n.input(6, 4, 3, 3, name="w")), 6)


@pattern(WHOLE, "IR 3: initializers are inputs too, opset 8", opset=8, ir_version=3)
def _(n):
    return n.bn(n.conv(image(n), 4, 6), 6)


@pattern(WHOLE, "opset 7", opset=7)
def _(n):
    return n.bn(n.conv(image(n), 4, 6, bias=False), 6)


@pattern(WHOLE, "weights in Constant nodes")
def _(n):
    y = n.bn(n.conv(image(n), 4, 6), 6)
    n.nodes[:0] = [helper.make_node("Constant", [], [t.name], name=f"const_{t.name}", value=t) for t in n.initializers]
    n.initializers.clear()
    return y


@pattern(WHOLE, "weights made by DequantizeLinear, one scale a channel")
def _(n):
    w = n.const(n.rng.integers(-127, 127, (6, 4, 3, 3)), np.int8)
    w = n.op("DequantizeLinear", w, n.const(n.rng.uniform(0.001, 0.01, 6)), n.const(np.zeros(6), np.int8), axis=0)
    return n.bn(n.op("Conv", image(n), w, n.const(n.normal(6))), 6)


@pattern(WHOLE, "weights in half precision, Cast to float")
def _(n):
    w = n.op("Cast", n.const(n.normal(6, 4, 3, 3), np.float16), to=FLOAT)
    return n.bn(n.op("Conv", image(n), w, n.const(n.normal(6))), 6)


# ---------------------------------------------------------------------------------------------------------------------

def affine_nodes(model):
    """Nodes that are an affine map of computed values: norms, and Mul/Add/Sub/Div by a constant. An Add right after a
    MatMul is its bias, and not counted."""
    constant = {t.name for t in model.graph.initializer}
    producer, found = {}, []
    for node in model.graph.node:
        producer.update(dict.fromkeys(node.output, node.op_type))
        given = [name for name in node.input if name]
        fixed = [name in constant for name in given]
        if node.op_type == "Constant" or given and all(fixed) and node.op_type not in ("If", "Loop", "Scan"):
            constant.update(node.output)
        elif node.op_type in ("BatchNormalization", "InstanceNormalization"):
            found.append(node)
        elif node.op_type in ("Mul", "Add", "Sub", "Div") and any(fixed):
            moving = given[fixed.index(False)]
            if not (node.op_type == "Add" and producer.get(moving) == "MatMul"):
                found.append(node)
    return found


def random_inputs(model, seed):
    """Inputs with a mean and a spread, so that a border or a shift done wrongly is seen."""
    rng = np.random.default_rng(seed)
    stored = {t.name for t in model.graph.initializer}
    feeds = {}
    for value in model.graph.input:
        if value.name in stored:
            continue
        kind = value.type.tensor_type
        shape = [d.dim_value or 2 for d in kind.shape.dim]
        feeds[value.name] = (np.asarray(bool(seed % 2)) if kind.elem_type == TensorProto.BOOL
                             else (rng.standard_normal(shape) + 0.5).astype(np.float32))
    return feeds
