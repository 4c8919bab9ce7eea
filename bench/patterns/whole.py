# SPDX-License-Identifier: Apache-2.0
"""Sharing, captures, and how a file says it."""
import numpy as np
from onnx import TensorProto, helper

from .builder import FLOAT, image, pattern

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
