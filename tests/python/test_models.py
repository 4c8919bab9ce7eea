# SPDX-License-Identifier: Apache-2.0
"""Every real model against its golden outputs: as stored, folded, and folded in ONNX Runtime."""
import glob
import os

import numpy as np
import onnx
import onnx.reference
import pytest

from helpers import (LOOSE, MODELS, SUITE, TOLERANCE, count, golden, judge, relative_error, worst_error)

NAMES = sorted(os.path.basename(path)[:-5] for path in glob.glob(f"{MODELS}/*.onnx"))
SUITE_NAMES = sorted(os.path.basename(path)[:-5] for path in glob.glob(f"{SUITE}/*.onnx")) if SUITE else []
# Batch-norms that may stay in the file: those of densenet sit between a Concat with other consumers and a Relu.
REFERENCE_IS_QUICK = ("resnet20_cifar10", "mcunet_imagenet")  # onnx's own evaluator is numpy
MAY_STAY = {"light_densenet121": 62}

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module", params=NAMES or ["none"])
def model(request, crease, tmp_path_factory):
    """(name, path, path of the folded file)"""
    if request.param == "none":
        pytest.skip("no models")
    path = f"{MODELS}/{request.param}.onnx"
    return request.param, path, crease.fold(path, str(tmp_path_factory.mktemp(request.param) / "folded.onnx"))


def test_runs_as_stored(crease, model):
    name, path, _ = model
    feeds, want = golden(name)
    assert worst_error(crease.run(path, feeds), want) <= LOOSE.get(name, TOLERANCE)


def test_runs_without_folding(crease, model):
    name, path, _ = model
    feeds, want = golden(name)
    assert worst_error(crease.run(path, feeds, "--no-fold"), want) <= LOOSE.get(name, TOLERANCE)


def test_runs_folded(crease, model):
    name, _, folded = model
    feeds, want = golden(name)
    assert worst_error(crease.run(folded, feeds), want) <= LOOSE.get(name, TOLERANCE)


def test_folded_file_is_valid_and_right_in_onnxruntime(model):
    name, _, folded = model
    onnx.checker.check_model(onnx.load(folded))
    feeds, want = golden(name)
    assert worst_error(judge(folded, feeds), want) <= LOOSE.get(name, TOLERANCE)


def test_folded_file_in_onnx_itself(model):
    name, _, folded = model
    onnx.checker.check_model(onnx.load(folded), full_check=True)
    inferred = onnx.shape_inference.infer_shapes(onnx.load(folded), strict_mode=True)
    stated = {v.name for v in inferred.graph.value_info} | {v.name for v in inferred.graph.output}
    assert all(o in stated for n in inferred.graph.node for o in n.output if o), "a value without a shape"
    if name in REFERENCE_IS_QUICK:
        feeds, want = golden(name)
        got = onnx.reference.ReferenceEvaluator(folded).run(list(want), feeds)
        assert worst_error(dict(zip(want, got)), want) <= LOOSE.get(name, TOLERANCE)


def test_folded_file_in_openvino(model):
    openvino = pytest.importorskip("openvino")
    name, _, folded = model
    feeds, want = golden(name)
    compiled = openvino.Core().compile_model(folded, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    result = compiled(feeds)
    got = {output: result[output] for output in want}
    assert worst_error(got, want) <= max(1e-3, LOOSE.get(name, TOLERANCE)), "past what its own rounding makes"


def test_batchnorms_left(model):
    name, _, folded = model
    assert count(folded, "BatchNormalization") <= MAY_STAY.get(name, 0)


def test_folding_twice_gives_the_same_bytes(crease, model, tmp_path):
    _, path, folded = model
    with open(folded, "rb") as f:
        once = f.read()
    with open(crease.fold(path, str(tmp_path / "again.onnx")), "rb") as f:
        assert f.read() == once, "the same input gave other bytes"
    with open(crease.fold(folded, str(tmp_path / "twice.onnx")), "rb") as f:
        assert f.read() == once, "folding a folded file changed it"


def test_file_keeps_what_is_not_folded(model):
    _, path, folded = model
    before, after = onnx.load(path), onnx.load(folded)
    assert [o.SerializeToString() for o in after.opset_import] == [o.SerializeToString() for o in before.opset_import]
    for field in ("ir_version", "producer_name", "producer_version", "domain", "model_version", "doc_string"):
        assert getattr(after, field) == getattr(before, field)
    assert list(after.metadata_props) == list(before.metadata_props)
    assert (after.graph.name, after.graph.doc_string) == (before.graph.name, before.graph.doc_string)
    stored = lambda m: {t.name for t in m.graph.initializer}
    inputs = lambda m: [v for v in m.graph.input if v.name not in stored(m)]
    assert inputs(after) == inputs(before)
    assert list(after.graph.output) == list(before.graph.output)


def cifar10(crease, name, folded, tmp_path):
    model = f"{MODELS}/{name}.onnx"
    if folded:
        model = crease.fold(model, str(tmp_path / "f.onnx"))
    with np.load(f"{MODELS}/cifar10_200.npz") as data:
        images = ((data["images"] / np.float32(255) - data["mean"]) / data["std"]).astype(np.float32)
        labels = data["labels"]
    return int((crease.run(model, {"input": images})["logits"].argmax(1) == labels).sum())


@pytest.mark.parametrize("folded", [False, True], ids=["stored", "folded"])
@pytest.mark.parametrize("name, right", [("resnet20_cifar10", 185), ("resnet56_cifar10", 189),
                                         ("resnet20_cifar10_convshortcut", 185)])
def test_cifar10_accuracy(crease, tmp_path, name, right, folded):
    assert cifar10(crease, name, folded, tmp_path) == right  # of 200: 92.5 % and 94.5 %


@pytest.mark.parametrize("folded", [False, True], ids=["stored", "folded"])
def test_imagenet_accuracy(crease, tmp_path, folded):
    model = f"{MODELS}/mcunet_imagenet.onnx"
    if folded:
        model = crease.fold(model, str(tmp_path / "f.onnx"))
    with np.load(f"{MODELS}/imagenet_19.npz") as data:
        images = ((data["images"].transpose(0, 3, 1, 2) / np.float32(255) - np.float32(0.5)) / np.float32(0.5))
        labels = data["labels"]
    logits = crease.run(model, {"input": images.astype(np.float32)})["logits"]
    best = np.argsort(-logits, axis=1)[:, :5]
    assert int((best[:, 0] == labels).sum()) == 13
    assert int((best == labels[:, None]).any(axis=1).sum()) == 17


@pytest.mark.parametrize("batch", [1, 3, 5])
def test_free_batch(crease, rng, batch):
    model = f"{MODELS}/resnet20_cifar10.onnx"
    feeds = {"input": rng.standard_normal((batch, 3, 32, 32)).astype(np.float32)}
    assert worst_error(crease.run(model, feeds), judge(model, feeds)) <= TOLERANCE


@pytest.mark.parametrize("height, width", [(64, 96), (96, 64), (160, 128)])
def test_free_spatial_size(crease, height, width):
    model = f"{MODELS}/ppocr_v2_det.onnx"
    image = golden("ppocr_v2_det")[0]["x"]  # on noise the output is 1e-6 everywhere: no scale to measure an error by
    feeds = {"x": np.ascontiguousarray(image[:, :, 100:100 + height, 100:100 + width])}
    assert worst_error(crease.run(model, feeds), judge(model, feeds)) <= 2e-4  # ONNX Runtime against itself: 5e-5


def test_same_bits_at_any_thread_count(crease):
    feeds, _ = golden("mcunet_imagenet")
    one, two, three = (crease.run(f"{MODELS}/mcunet_imagenet.onnx", feeds, threads=t)["logits"] for t in (1, 2, 3))
    assert one.tobytes() == two.tobytes() == three.tobytes()


@pytest.mark.skipif(not SUITE_NAMES, reason="CREASE_SUITE not set: the 18 large networks are not run")
@pytest.mark.parametrize("name", SUITE_NAMES or ["none"])
def test_speed_suite(crease, tmp_path, name):
    with np.load(f"{SUITE}/{name}.npz") as data:
        feeds, want = {"input": data["input"]}, data["output"]
    model = f"{SUITE}/{name}.onnx"
    folded = crease.fold(model, str(tmp_path / "f.onnx"))
    assert relative_error(crease.run(model, feeds)["output"], want) <= 1e-3
    assert relative_error(crease.run(folded, feeds)["output"], want) <= 1e-3
    assert relative_error(judge(folded, feeds)["output"], want) <= 1e-3
