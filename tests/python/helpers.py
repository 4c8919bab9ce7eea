# SPDX-License-Identifier: Apache-2.0
"""What the tests share: the program, the judge, and small networks."""
import json
import os
import subprocess
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DIGITS = os.path.join(REPO, "examples", "digits")
SHARED = os.environ.get("CREASE_SHARED") or os.path.join(REPO, "..", "shared")
MODELS = os.path.join(SHARED, "models")
SUITE = os.environ.get("CREASE_SUITE", "")
THREADS = os.environ.get("CREASE_THREADS", "2")

# Exit codes of every subcommand.
OK, FINDING, USAGE, BAD_INPUT, INTERNAL = 0, 1, 2, 3, 4

# Largest error against the golden outputs, in standard deviations of the output. One network is badly conditioned:
# its f32 output moves by 8e-4 when any sum is reordered (ONNX Runtime against itself).
TOLERANCE = 1e-4
LOOSE = {"ppocr_v2_det_prune": 3e-3}


class Crease:
    """The program under test."""

    def __init__(self, binary):
        self.binary = binary

    def __call__(self, *arguments, expect=OK, timeout=120):
        """Runs `crease ARGUMENTS`; fails the test unless it exits with `expect` (an int, a tuple, or None for any)."""
        command = [self.binary, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
        expected = expect if isinstance(expect, tuple) else (expect,)
        assert expect is None or done.returncode in expected, (
            f"exit {done.returncode}, expected {expect}: {' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        return done

    def json(self, *arguments, expect=OK, timeout=120):
        """What a `--json` run prints: one JSON value on stdout and nothing else."""
        done = self(*arguments, "--json", expect=expect, timeout=timeout)
        return json.loads(done.stdout)

    def run(self, model, feeds, *flags, threads=THREADS):
        """Outputs by name for inputs by name."""
        with tempfile.TemporaryDirectory() as folder:
            np.savez(f"{folder}/in.npz", **feeds)
            self("run", model, "--input", f"{folder}/in.npz", "--output", f"{folder}/out.npz", "--threads", threads, *flags)
            with np.load(f"{folder}/out.npz") as out:
                return {name: out[name] for name in out.files}

    def fold(self, model, out, *flags, expect=OK):
        self("fold", model, "-o", out, *flags, expect=expect)
        return out


def relative_error(got, want):
    """max |got - want| over the standard deviation of `want` (or 1 % of its peak, where it hardly varies)."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    if got.shape != want.shape:
        return float("inf")
    if got.size == 0:
        return 0.0
    error = np.abs(got - want).max() / max(want.std(), 1e-2 * np.abs(want).max(), 1e-12)
    return float(error) if np.isfinite(error) else float("inf")


def worst_error(got, want):
    """Largest relative_error over the outputs of `want`."""
    return max(relative_error(got[name], value) for name, value in want.items())


def judge(model, feeds):
    """Outputs by name from ONNX Runtime, every optimisation off. `model`: a path or a ModelProto."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = int(THREADS)
    source = model if isinstance(model, (str, os.PathLike)) else model.SerializeToString()
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds)))


def noise(model, feeds, want):
    """How far f32 outputs move when the inputs move in their last digits: what no reordering of sums can beat."""
    moved = {k: v * (1 + 3e-7 * np.sign(np.sin(np.arange(v.size, dtype=np.float32).reshape(v.shape)))) for k, v in feeds.items()}
    got = judge(model, {k: v.astype(np.float32) for k, v in moved.items()})
    return {name: relative_error(got[name], want[name]) for name in want}


def count(model, op_type):
    model = onnx.load(model, load_external_data=False) if isinstance(model, (str, os.PathLike)) else model
    return sum(node.op_type == op_type for node in model.graph.node)


def golden(name):
    """(inputs, outputs) by name from golden/NAME.npz."""
    with np.load(f"{MODELS}/golden/{name}.npz") as arrays:
        return ({key[3:]: arrays[key] for key in arrays.files if key.startswith("in/")},
                {key[4:]: arrays[key] for key in arrays.files if key.startswith("out/")})


# ---------------------------------------------------------------------------------------------------------------------
# Small networks.

def tensor(name, array, dtype=np.float32):
    return numpy_helper.from_array(np.asarray(array, dtype), name)


def batchnorm_tensors(channels, rng, prefix="bn"):
    """Initializers of a batch-norm with statistics that matter: [gamma, beta, mean, var]."""
    return [tensor(f"{prefix}_gamma", rng.uniform(0.5, 1.5, channels)),
            tensor(f"{prefix}_beta", rng.normal(0, 0.3, channels)),
            tensor(f"{prefix}_mean", rng.normal(0, 0.3, channels)),
            tensor(f"{prefix}_var", rng.uniform(0.3, 2.0, channels))]


def batchnorm_node(x, y, prefix="bn", **attributes):
    """In training mode it has the three outputs that ONNX wants then."""
    outputs = [y, f"{prefix}_new_mean", f"{prefix}_new_var"] if attributes.get("training_mode") else [y]
    return helper.make_node("BatchNormalization", [x, *(f"{prefix}_{part}" for part in ("gamma", "beta", "mean", "var"))],
                            outputs, name=f"{prefix}_node", **attributes)


def make_model(nodes, initializers, inputs, outputs, opset=17, ir_version=8, name="test", inputs_hold_initializers=False):
    """`inputs`, `outputs`: {name: shape}, f32; a shape may hold strings (free dimensions), an output's be None: inferred."""
    info = lambda items: [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in items.items()]
    graph_inputs = info(inputs)
    if inputs_hold_initializers:
        graph_inputs += [helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in initializers]
    graph = helper.make_graph(nodes, name, graph_inputs, info(outputs), initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version,
                              producer_name="tests")
    if None in outputs.values():
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        del model.graph.output[:]
        model.graph.output.extend(inferred.graph.output)
    return model


def conv_bn_relu(rng, opset=17, ir_version=8, bias=True, constant_nodes=False, **batchnorm_attributes):
    """x (N, 3, 9, 8) -> Conv 3x3 pad 1, 5 channels -> BatchNormalization -> Relu -> y."""
    weights = [tensor("w", rng.normal(0, 0.3, (5, 3, 3, 3)))] + ([tensor("b", rng.normal(0, 0.3, 5))] if bias else [])
    initializers = weights + batchnorm_tensors(5, rng)
    nodes = [helper.make_node("Conv", ["x", "w"] + (["b"] if bias else []), ["c"], name="conv", pads=[1, 1, 1, 1]),
             batchnorm_node("c", "n", **batchnorm_attributes), helper.make_node("Relu", ["n"], ["y"], name="relu")]
    if constant_nodes:
        nodes = [helper.make_node("Constant", [], [t.name], name=f"const_{t.name}", value=t) for t in initializers] + nodes
        initializers = []
    return make_model(nodes, initializers, {"x": ["N", 3, 9, 8]}, {"y": ["N", 5, 9, 8]}, opset, ir_version,
                      inputs_hold_initializers=ir_version < 4)


def random_feeds(model, rng, batch=2):
    """Normal f32 inputs for every graph input that is no initializer; free dimensions become `batch`."""
    stored = {t.name for t in model.graph.initializer}
    return {value.name: rng.standard_normal([d.dim_value or batch for d in value.type.tensor_type.shape.dim]).astype(np.float32)
            for value in model.graph.input if value.name not in stored}


def save(model, path, **options):
    onnx.save(model, str(path), **options)
    return str(path)


# ---------------------------------------------------------------------------------------------------------------------
# Batch-norms and their statistics.

def arrays_of(model):
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(model).graph.initializer}


def statistics_of(model):
    """{node: (mean, var)} of every BatchNormalization."""
    arrays = arrays_of(model)
    return {n.name: (arrays[n.input[3]], arrays[n.input[4]]) for n in onnx.load(model).graph.node
            if n.op_type == "BatchNormalization"}


def is_training(model):
    return any(a.name == "training_mode" and a.i for n in onnx.load(model).graph.node for a in n.attribute)


def single_norm(rng, shape=("N", 3, 4, 5), **attributes):
    return make_model([batchnorm_node("x", "y", **attributes)], batchnorm_tensors(3, rng), {"x": list(shape)},
                      {"y": list(shape)})


def batch_statistics(x):
    axes = (0, *range(2, x.ndim))
    return x.mean(axes, dtype=np.float64), x.var(axes, dtype=np.float64, ddof=1)
