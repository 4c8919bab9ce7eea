# SPDX-License-Identifier: Apache-2.0
"""What reads the value takes the map."""
from .builder import image, pattern

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
