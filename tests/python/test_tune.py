# SPDX-License-Identifier: Apache-2.0
"""`crease tune`: measures on a real network, remembers, and what runs afterwards is still right."""
import numpy as np
import pytest

from helpers import BAD_INPUT, DIGITS, USAGE

MODEL, TEST = f"{DIGITS}/digits.onnx", f"{DIGITS}/digits_test.npz"


def outputs(crease, folder, *flags):
    crease("run", MODEL, "--input", TEST, "--output", f"{folder}/out.npz", "--threads", "2", *flags)
    with np.load(f"{folder}/out.npz") as out:
        return {name: out[name] for name in out.files}


def test_tune_then_run(crease, tmp_path):
    before = outputs(crease, tmp_path, "--no-tuning")
    file = tmp_path / "tuning.txt"
    said = crease.json("tune", MODEL, "--threads", "2", "--tuning", file, "--seconds", "0.05")
    assert said["layers"] > 0 and said["untuned_ms"] > 0 and said["tuned_ms"] <= said["untuned_ms"]
    assert file.exists() == bool(said["changes"])
    for change in said["changes"]:
        assert change["from"] != change["to"] and change["to_ms"] < change["from_ms"]
    after = outputs(crease, tmp_path, "--tuning", file)
    assert before.keys() == after.keys()
    for name, expected in before.items():
        assert np.abs(after[name] - expected).max() <= 1e-4 * expected.std()


def test_cache_folder_is_the_default(crease, tmp_path, monkeypatch):
    monkeypatch.setenv("CREASE_CACHE_DIR", str(tmp_path / "cache"))
    said = crease.json("tune", MODEL, "--threads", "1", "--seconds", "0.05")
    assert said["tuning"].startswith(str(tmp_path / "cache"))


def test_damaged_cache_is_no_error(crease, tmp_path):
    file = tmp_path / "tuning.txt"
    file.write_bytes(b"\x00\xff" * 100)
    expected = outputs(crease, tmp_path, "--no-tuning")
    found = outputs(crease, tmp_path, "--tuning", file)
    assert all(np.array_equal(expected[name], found[name]) for name in expected)


def test_bad_model(crease, tmp_path):
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"\xff" * 100)
    assert crease("tune", bad, expect=BAD_INPUT).stderr.strip()


@pytest.mark.parametrize("arguments", [["tune"], ["tune", MODEL, "--tuning", "x", "--no-tuning"]])
def test_usage(crease, arguments):
    assert crease(*arguments, expect=USAGE).stderr.strip()
