# SPDX-License-Identifier: Apache-2.0
"""The network that ships with Crease: accuracy through the same commands as in its README."""
import subprocess
import sys

import numpy as np
import onnx
import pytest

from helpers import DIGITS, OK, count, judge, worst_error

MODEL, TEST = f"{DIGITS}/digits.onnx", f"{DIGITS}/digits_test.npz"


def images():
    with np.load(TEST) as data:
        return data["image"]


@pytest.mark.parametrize("folded", [False, True], ids=["stored", "folded"])
def test_accuracy(crease, tmp_path, folded):
    model = crease.fold(MODEL, str(tmp_path / "f.onnx"), "--verify") if folded else MODEL
    out = str(tmp_path / "out.npz")
    crease("run", model, "--input", TEST, "--output", out)  # the extra array `labels` is no input: ignored
    done = subprocess.run([sys.executable, f"{DIGITS}/accuracy.py", out], capture_output=True, text=True)
    assert done.returncode == OK, done.stdout + done.stderr
    assert "99.11 %" in done.stdout


@pytest.mark.parametrize("batch", [1, 2, 7, 450])
def test_free_batch(crease, batch):
    feeds = {"image": images()[:batch]}
    assert worst_error(crease.run(MODEL, feeds), judge(MODEL, feeds)) <= 1e-5


def test_folds_completely(crease, tmp_path):
    folded = crease.fold(MODEL, str(tmp_path / "f.onnx"))
    onnx.checker.check_model(onnx.load(folded), full_check=True)
    assert count(MODEL, "BatchNormalization") == 6
    assert count(folded, "BatchNormalization") == 0
    assert count(folded, "Conv") == count(MODEL, "Conv")
    assert len(onnx.load(folded).graph.node) == len(onnx.load(MODEL).graph.node) - 6
    feeds = {"image": images()}
    assert worst_error(judge(folded, feeds), judge(MODEL, feeds)) <= 1e-5
