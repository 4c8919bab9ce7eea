# SPDX-License-Identifier: Apache-2.0
"""What makes the value takes the map."""
from .builder import image, pattern

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
