# SPDX-License-Identifier: Apache-2.0
"""What the patterns are built with, and how they are judged."""
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
