# SPDX-License-Identifier: Apache-2.0
"""The command line as other tools drive it: arguments, exit codes, and the keys of its JSON."""
import json
import os
import re

import numpy as np
import onnx
import pytest

from helpers import (BAD_INPUT, DIGITS, FINDING, OK, USAGE, conv_bn_relu, count, judge, make_model, random_feeds, save,
                     tensor, worst_error)

MODEL, TEST = f"{DIGITS}/digits.onnx", f"{DIGITS}/digits_test.npz"
SUBCOMMANDS = ["fold", "run", "bench", "inspect", "lint"]


def test_help(crease):
    text = crease("--help").stdout
    for name in SUBCOMMANDS:
        assert name in text
        assert name in crease(name, "--help").stdout


def test_version(crease):
    assert any(c.isdigit() for c in crease("--version").stdout)


@pytest.mark.parametrize("arguments", [
    [], ["frobnicate"], ["fold"], ["fold", MODEL], ["fold", MODEL, "-o"], ["fold", MODEL, "-o", "x.onnx", "--frob"],
    ["run", MODEL], ["run", MODEL, "--input", TEST, "--output", "x.npz", "--threads", "many"],
    ["run", MODEL, "--input", TEST, "--output", "x.npz", "--precision", "f7"],
    ["bench"], ["bench", MODEL, "--batch", "0"], ["bench", MODEL, "--threads", "-1"], ["inspect"], ["lint"]],
    ids=lambda a: " ".join(os.path.basename(x) for x in a) or "nothing")
def test_usage_errors(crease, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    done = crease(*arguments, expect=USAGE)
    assert done.stderr.strip(), "say on stderr what was wrong"
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("target", ["sse2", "AVX2", "avx3", "AMX"])
def test_a_cap_on_the_instruction_set(crease, monkeypatch, target):
    """Every kernel keeps to it: none is wider than the target's, and the JSON says which it was."""
    def profile():
        return json.loads(crease("bench", MODEL, "--seconds", "0.1", "--threads", "1", "--json", "--profile").stdout)
    order = ["SSE2", "AVX2", "AVX3", "AMX"]
    monkeypatch.delenv("CREASE_TARGET", raising=False)
    best = profile()["target"]
    monkeypatch.setenv("CREASE_TARGET", target)
    capped = profile()
    assert capped["target"] == min(best, target.upper(), key=order.index)
    widths = [int(width) for node in capped["profile"] for width in re.findall(r"(\d+) wide", node["kernel"])]
    assert widths and max(widths) <= 4 * {"SSE2": 4, "AVX2": 8, "AVX3": 16, "AMX": 16}[capped["target"]]


@pytest.mark.parametrize("target, unwanted", [("avx2", "avx512"), ("sse2", "avx")])
def test_a_cap_on_the_instruction_set_of_onednn(crease, monkeypatch, tmp_path, rng, target, unwanted):
    """A convolution over volumes runs on oneDNN, whose instruction set the plan names."""
    volume = make_model([onnx.helper.make_node("Conv", ["x", "w"], ["y"])], [tensor("w", rng.normal(size=(8, 2, 3, 3, 3)))],
                        {"x": (1, 2, 9, 9, 9)}, {"y": None})
    monkeypatch.setenv("CREASE_TARGET", target)
    plan = crease("inspect", save(volume, tmp_path / "volume.onnx")).stdout
    kernel = next(line for line in plan.splitlines() if " Conv " in line and "channels-last" in line).split()[-1]
    assert ":" in kernel and unwanted not in kernel


@pytest.mark.parametrize("target", ["avx512", "sse"])
def test_a_cap_that_is_none(crease, monkeypatch, target):
    monkeypatch.setenv("CREASE_TARGET", target)
    done = crease("bench", MODEL, "--seconds", "0.1", expect=BAD_INPUT)
    assert f"CREASE_TARGET is '{target}', expected one of AMX AVX3 AVX2 SSE2" in done.stderr


def commands(model, folder):
    return {"fold": ["fold", model, "-o", f"{folder}/out.onnx"],
            "run": ["run", model, "--input", TEST, "--output", f"{folder}/out.npz"],
            "bench": ["bench", model, "--seconds", "0.1"], "inspect": ["inspect", model], "lint": ["lint", model]}


@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
@pytest.mark.parametrize("case", ["missing", "empty", "garbage", "truncated", "directory"])
def test_bad_models(crease, tmp_path, case, subcommand):
    path = tmp_path / "bad.onnx"
    with open(MODEL, "rb") as f:
        good = f.read()
    if case == "directory":
        path.mkdir()
    elif case != "missing":
        path.write_bytes({"empty": b"", "garbage": b"\xff" * 4096, "truncated": good[:len(good) // 2]}[case])
    done = crease(*commands(path, tmp_path)[subcommand], expect=BAD_INPUT)
    assert done.stderr.strip()
    assert not (tmp_path / "out.onnx").exists() and not (tmp_path / "out.npz").exists()


def run_with(crease, tmp_path, arrays, expect):
    np.savez(tmp_path / "in.npz", **arrays)
    return crease("run", MODEL, "--input", tmp_path / "in.npz", "--output", tmp_path / "out.npz", expect=expect)


def test_bad_inputs_name_what_was_expected(crease, tmp_path):
    image = np.zeros((2, 1, 8, 8), np.float32)
    assert "image" in run_with(crease, tmp_path, {"picture": image}, BAD_INPUT).stderr
    done = run_with(crease, tmp_path, {"image": np.zeros((2, 3, 8, 8), np.float32)}, BAD_INPUT)
    assert "image" in done.stderr
    run_with(crease, tmp_path, {"image": np.zeros((2, 64), np.float32)}, BAD_INPUT)
    run_with(crease, tmp_path, {"image": image.astype(np.int64)}, BAD_INPUT)
    (tmp_path / "in.npz").write_bytes(b"PK nonsense")
    crease("run", MODEL, "--input", tmp_path / "in.npz", "--output", tmp_path / "out.npz", expect=BAD_INPUT)
    crease("run", MODEL, "--input", tmp_path / "none.npz", "--output", tmp_path / "out.npz", expect=BAD_INPUT)
    assert not (tmp_path / "out.npz").exists()


def test_npy_input(crease, tmp_path):
    with np.load(TEST) as data:
        image = data["image"][:5]
    np.save(tmp_path / "image.npy", image)
    crease("run", MODEL, "--input", f"image={tmp_path}/image.npy", "--output", tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as out:
        assert out.files == ["logits"] and out["logits"].dtype == np.float32
        assert worst_error({"logits": out["logits"]}, judge(MODEL, {"image": image})) <= 1e-5


def test_npz_names_beyond_ascii(crease, rng, tmp_path):
    model = make_model([onnx.helper.make_node("Relu", ["größe"], ["é"]), onnx.helper.make_node("Neg", ["größe"], ["漢字"])], [],
                       {"größe": (2, 3)}, {"é": (2, 3), "漢字": (2, 3)})
    x = rng.normal(size=(2, 3)).astype(np.float32)
    out = crease.run(save(model, tmp_path / "model.onnx"), {"größe": x})
    assert set(out) == {"é", "漢字"} and np.array_equal(out["é"], np.maximum(x, 0)) and np.array_equal(out["漢字"], -x)


@pytest.mark.parametrize("variant", ["compressed", "fortran", "big-endian"])
def test_npz_variants(crease, tmp_path, variant):
    with np.load(TEST) as data:
        image = data["image"][:4]
    want = judge(MODEL, {"image": image})
    if variant == "compressed":
        np.savez_compressed(tmp_path / "in.npz", image=image)
    else:
        np.savez(tmp_path / "in.npz", image=np.asfortranarray(image) if variant == "fortran" else image.astype(">f4"))
    done = crease("run", MODEL, "--input", tmp_path / "in.npz", "--output", tmp_path / "out.npz", expect=(OK, BAD_INPUT))
    if done.returncode == OK:  # may be refused, may not be read wrongly
        with np.load(tmp_path / "out.npz") as out:
            assert worst_error({"logits": out["logits"]}, want) <= 1e-5
    else:
        assert done.stderr.strip()


def test_same_bits_with_any_flag_that_is_not_arithmetic(crease):
    with np.load(TEST) as data:
        feeds = {"image": data["image"][:32]}
    one = crease.run(MODEL, feeds, threads=1)["logits"]
    assert crease.run(MODEL, feeds, threads=2)["logits"].tobytes() == one.tobytes()
    assert crease.run(MODEL, feeds, "--precision", "f32", threads=1)["logits"].tobytes() == one.tobytes()


BENCH_KEYS = ["median_ms", "p90_ms", "p99_ms", "min_ms", "inferences_per_s", "load_ms", "first_run_ms", "peak_rss_mib", "gflops",
              "threads"]


@pytest.mark.parametrize("flags", [[], ["--threads", "1"], ["--batch", "4"], ["--streams", "2"], ["--precision", "f32"]],
                         ids=lambda f: " ".join(f) or "plain")
def test_bench_json(crease, flags):
    found = crease.json("bench", MODEL, "--seconds", "0.2", *flags)
    for key in BENCH_KEYS:
        assert isinstance(found[key], (int, float)) and found[key] > 0, (key, found.get(key))
    assert found["min_ms"] <= found["median_ms"] <= found["p90_ms"] <= found["p99_ms"]


def test_bench_profile_and_trace(crease, tmp_path):
    text = crease("bench", MODEL, "--seconds", "0.2", "--profile", "--trace", tmp_path / "trace.json").stdout
    assert "Conv" in text
    trace = json.loads((tmp_path / "trace.json").read_text())
    events = trace["traceEvents"] if isinstance(trace, dict) else trace
    assert any(e.get("ph") == "X" and e["dur"] >= 0 and "ts" in e and "name" in e for e in events)


def test_inspect_json(crease):
    found = crease.json("inspect", MODEL)
    for key in ("inputs", "outputs", "operators", "parameters", "macs", "batchnorm", "folding", "plan"):
        assert key in found, sorted(found)
    assert [i["name"] for i in found["inputs"]] == ["image"]
    assert [o["name"] for o in found["outputs"]] == ["logits"]
    assert found["batchnorm"] == 6
    names = [n.name for n in onnx.load(MODEL).graph.node if n.op_type == "BatchNormalization"]
    assert set(names) <= {entry["node"] for entry in found["folding"] if entry["folded"]}
    assert found["operators"]["Conv"] == 6
    assert found["macs"] > 1e5 and found["parameters"] > 1e4


def test_inspect_text_and_dot(crease, tmp_path):
    text = crease("inspect", MODEL, "--dot", tmp_path / "g.dot").stdout
    assert "image" in text and "logits" in text and "Conv" in text
    dot = (tmp_path / "g.dot").read_text()
    assert dot.lstrip().startswith(("digraph", "strict digraph", "//")) and "Conv" in dot and dot.rstrip().endswith("}")


def test_fold_json_and_explain(crease, tmp_path):
    found = crease.json("fold", MODEL, "-o", tmp_path / "f.onnx", "--verify=3")
    assert count(str(tmp_path / "f.onnx"), "BatchNormalization") == 0
    assert (found["batchnorms_before"], found["batchnorms_left"]) == (6, 0)
    names = [n.name for n in onnx.load(MODEL).graph.node if n.op_type == "BatchNormalization"]
    assert set(names) <= {entry["node"] for entry in found["entries"] if entry["folded"] and entry["code"]}
    assert found["verify"]
    text = crease("fold", MODEL, "-o", tmp_path / "g.onnx", "--explain").stdout
    assert all(name in text for name in names), "one line for every batch-norm"


@pytest.mark.parametrize("verify", ["--verify", "--verify=1", "--verify=5"])
def test_fold_verify(crease, tmp_path, verify):
    assert crease("fold", MODEL, "-o", tmp_path / "f.onnx", verify).stdout.strip()


def test_fail_on_unfolded(crease, rng, tmp_path):
    crease("fold", MODEL, "-o", tmp_path / "f.onnx", "--fail-on", "unfolded", expect=OK)
    source = save(conv_bn_relu(rng, training_mode=1), tmp_path / "train.onnx")
    crease("fold", source, "-o", tmp_path / "g.onnx", expect=OK)
    crease("fold", source, "-o", tmp_path / "g.onnx", "--fail-on", "unfolded", expect=FINDING)


def test_control_characters_in_names_do_not_reach_the_terminal(crease, rng, tmp_path):
    model = conv_bn_relu(rng)
    model.graph.node[1].name = "bad\x1b[31mname\x07"
    source = save(model, tmp_path / "m.onnx")
    for arguments in (["inspect", source], ["fold", source, "-o", tmp_path / "f.onnx", "--explain"], ["lint", source]):
        done = crease(*arguments, expect=(OK, FINDING))
        assert "\x1b" not in done.stdout + done.stderr and "\x07" not in done.stdout + done.stderr


@pytest.mark.parametrize("first_axis", [0, 1, 2])
def test_a_larger_batch_than_the_files(crease, rng, tmp_path, first_axis):
    """It runs in pieces, whose outputs can be joined where they begin with the batch."""
    perm = [first_axis, *(axis for axis in range(4) if axis != first_axis)]
    model = make_model([onnx.helper.make_node("Conv", ["x", "w"], ["c"]),
                        onnx.helper.make_node("Transpose", ["c"], ["y"], perm=perm)],
                       [tensor("w", rng.normal(size=(4, 3, 3, 3)))], {"x": (2, 3, 8, 8)}, {"y": None})
    path, out = save(model, tmp_path / "model.onnx"), tmp_path / "out.npz"
    x = rng.normal(size=(6, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "in.npz", x=x)
    arguments = ["run", path, "--input", tmp_path / "in.npz", "--output", out]
    if first_axis == 0:
        crease(*map(str, arguments))
        pieces = [judge(model, {"x": x[i:i + 2]})["y"] for i in range(0, 6, 2)]
        assert worst_error(np.load(out), {"y": np.concatenate(pieces)}) <= 1e-5
    else:
        done = crease(*map(str, arguments), expect=BAD_INPUT)
        assert "output 'y'" in done.stderr and "does not begin with the file's batch, 2" in done.stderr
        assert not out.exists()


def test_options_before_the_models(crease, rng, tmp_path):
    """In the order of the usage line: an option that may be repeated takes one value each time."""
    path = save(conv_bn_relu(rng), tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=rng.standard_normal((2, 3, 9, 8)).astype(np.float32))
    given = ["--input", tmp_path / "x.npz"]
    crease("run", *given, path, "--output", tmp_path / "y.npz")
    crease("fold", *given, "--fail-on", "unfolded", path, "-o", tmp_path / "folded.onnx")
    crease("diff", *given, *given, path, tmp_path / "folded.onnx", "--samples", "1")
