# SPDX-License-Identifier: Apache-2.0
"""Crease on every pattern of bench/patterns/: never wrong, and as few affine nodes left as an exact folder can leave."""
import sys

import onnx
import pytest

from helpers import REPO, judge, relative_error, save

sys.path.insert(0, f"{REPO}/bench")
from patterns import PATTERNS, affine_nodes, random_inputs  # noqa: E402

TOLERANCE = 2e-5  # of ONNX Runtime's f32 against itself


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda p: p.name)
def test_pattern(crease, tmp_path, pattern):
    model = pattern.model()
    source = save(model, tmp_path / "in.onnx")
    folded = crease.fold(source, str(tmp_path / "out.onnx"))
    out = onnx.load(folded)
    onnx.checker.check_model(out)
    for seed in range(3):
        feeds = random_inputs(model, seed)
        want, got = judge(source, feeds), judge(folded, feeds)
        assert list(got) == list(want)
        for name in want:
            assert relative_error(got[name], want[name]) <= TOLERANCE, name
    crease.fold(folded, str(tmp_path / "twice.onnx"))
    assert (tmp_path / "twice.onnx").read_bytes() == (tmp_path / "out.onnx").read_bytes(), "folding it again changed it"
    left = affine_nodes(out)
    assert len(left) <= pattern.best, f"{len(left)} of {len(affine_nodes(model))} left: {[n.name for n in left]}"


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda p: p.name)
def test_run(crease, tmp_path, pattern):
    model = pattern.model()
    if any(node.op_type in ("If", "Cast", "DequantizeLinear", "InstanceNormalization") for node in model.graph.node):
        pytest.skip("an operator or a type that Crease keeps in files but need not run")
    source = save(model, tmp_path / "in.onnx")
    feeds = random_inputs(model, 1)
    want = judge(source, feeds)
    for flags in ([], ["--no-fold"]):
        got = crease.run(source, feeds, *flags)
        for name in want:
            assert relative_error(got[name], want[name]) <= TOLERANCE, (name, flags)
