# SPDX-License-Identifier: Apache-2.0
"""What a map may be written as."""
import numpy as np
from onnx import TensorProto

from .builder import FLOAT, image, pattern

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
