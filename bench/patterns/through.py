# SPDX-License-Identifier: Apache-2.0
"""Operators that a map travels through."""
from .builder import image, pattern

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
