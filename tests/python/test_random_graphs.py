# SPDX-License-Identifier: Apache-2.0
"""Random networks with awkward affines, folded by Crease and judged by ONNX Runtime.

CREASE_RANDOM_GRAPHS sets how many (default 200), CREASE_RANDOM_SEED where the seeds start (default 0). A failure names
its seed; `test_random_graphs.py SEED FILE.onnx` writes that network.
"""
import os
import sys

import numpy as np
import onnx
import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from helpers import REPO, judge, noise, relative_error, save  # noqa: E402

sys.path.insert(0, f"{REPO}/bench")
from patterns import Net, affine_nodes  # noqa: E402

COUNT = int(os.environ.get("CREASE_RANDOM_GRAPHS", "200"))
FIRST = int(os.environ.get("CREASE_RANDOM_SEED", "0"))
BATCH_OF_SEEDS = 20


class Maker:
    """Grows a network from (name, channels, height, width) values, a random operator at a time."""

    def __init__(self, seed):
        self.n = Net(seed)
        self.rng = self.n.rng
        self.weights = {}  # shape -> names, for sharing
        self.values = [(self.n.input("N", 4, 10, 10), 4, 10, 10)]

    def pick(self):
        newest = int(self.rng.integers(1, 4))  # mostly chains, some branches
        return self.values[-min(newest, len(self.values))]

    def chance(self, p):
        return self.rng.random() < p

    def weight(self, *shape):
        known = self.weights.setdefault(shape, [])
        if known and self.chance(0.2):
            return known[int(self.rng.integers(len(known)))]
        known.append(self.n.const(self.rng.normal(0, (2 / max(1, np.prod(shape[1:]))) ** 0.5, shape), stem="weight"))
        return known[-1]

    def scales(self, c):
        values = self.rng.uniform(0.3, 1.7, c)
        kind = self.rng.random()
        if kind < 0.3:
            values *= self.rng.choice([-1, 1], c)
        elif kind < 0.4:
            values[self.rng.integers(c)] = 0
        elif kind < 0.5:
            values *= 10.0 ** self.rng.integers(-2, 3, c)
        return values

    def shifts(self, c):
        return np.zeros(c) if self.chance(0.2) else self.rng.normal(0, 0.5, c)

    # Each operator returns the new value, or None where it does not fit.
    def conv(self, v):
        x, c, h, w = v
        k = int(self.rng.choice([1, 1, 2, 3]))
        group = int(self.rng.choice([g for g in (1, 1, 2, c) if c % g == 0]))
        c_out = group * int(self.rng.integers(1, 5))
        attributes = {"group": group}
        pad = int(self.rng.integers(0, 2)) if k > 1 else 0
        stride = int(self.rng.choice([1, 1, 2]))
        if min(h, w) + 2 * pad < k or max(h, w) > 40:
            return None
        extra = [self.n.const(self.rng.normal(0, 0.5, c_out))] if self.chance(0.5) else []
        if self.chance(0.2):
            y = self.n.op("ConvTranspose", x, self.weight(c, c_out // group, k, k), *extra, strides=[stride] * 2, **attributes)
            return y, c_out, (h - 1) * stride + k, (w - 1) * stride + k
        y = self.n.op("Conv", x, self.weight(c_out, c // group, k, k), *extra, strides=[stride] * 2, pads=[pad] * 4, **attributes)
        return y, c_out, (h + 2 * pad - k) // stride + 1, (w + 2 * pad - k) // stride + 1

    def affine(self, v):
        x, c, h, w = v
        form = int(self.rng.integers(0, 5))
        n, channels = self.n, lambda a: self.n.const(a.reshape((c, 1, 1) if self.chance(0.5) else (1, c, 1, 1)))
        if form < 3:
            values = [self.scales(c), self.shifts(c), self.shifts(c), self.rng.uniform(0.3, 2, c)]
            return n.bn(x, c, values=values, epsilon=float(self.rng.choice([1e-5, 1e-3]))), c, h, w
        if form == 3:
            y = n.op("Mul", x, channels(self.scales(c)))
            return n.op("Add", channels(self.shifts(c)), y), c, h, w
        scale = self.scales(c)
        scale[scale == 0] = 1
        y = n.op("Sub", x, channels(self.shifts(c)))
        return n.op("Div", y, channels(scale)), c, h, w

    def activation(self, v):
        x, c, h, w = v
        kind = self.rng.choice(["Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "Identity"])
        extra = {"PRelu": [self.n.const(self.rng.uniform(0.1, 0.6, (c, 1, 1)))] if kind == "PRelu" else [],
                 "Clip": [self.n.const(-1), self.n.const(2)] if kind == "Clip" else []}.get(kind, [])
        return self.n.op(str(kind), x, *extra), c, h, w

    def pool(self, v):
        x, c, h, w = v
        if min(h, w) < 3:
            return None
        kind, k, pad = self.rng.choice(["MaxPool", "AveragePool"]), int(self.rng.integers(2, 4)), int(self.rng.integers(0, 2))
        options = {"count_include_pad": int(self.rng.integers(0, 2))} if kind == "AveragePool" else {}
        y = self.n.op(str(kind), x, kernel_shape=[k, k], pads=[pad] * 4, strides=[2, 2], **options)
        return y, c, (h + 2 * pad - k) // 2 + 1, (w + 2 * pad - k) // 2 + 1

    def add(self, v):
        same = [u for u in self.values if u[1:] == v[1:] and u[0] != v[0]]
        if not same:
            return None
        return self.n.op("Add", v[0], same[int(self.rng.integers(len(same)))][0]), *v[1:]

    def concat(self, v):
        same = [u for u in self.values if u[2:] == v[2:]]
        other = same[int(self.rng.integers(len(same)))]
        if v[1] + other[1] > 24:
            return None
        return self.n.op("Concat", v[0], other[0], axis=1), v[1] + other[1], *v[2:]

    def move(self, v):
        """Operators that only move values."""
        x, c, h, w = v
        n, form = self.n, int(self.rng.integers(0, 6))
        if form == 0:
            mode = str(self.rng.choice(["constant", "edge"]))
            return n.op("Pad", x, n.ints(0, 0, 1, 0, 0, 0, 0, 1), mode=mode), c, h + 1, w + 1
        if form == 1 and max(h, w) <= 20:
            mode = str(self.rng.choice(["nearest", "linear"]))
            return n.op("Resize", x, "", n.const([1, 1, 2, 2]), mode=mode), c, 2 * h, 2 * w
        if form == 2 and c >= 2:
            begin = int(self.rng.integers(0, c - 1))
            end = int(self.rng.integers(begin + 1, c + 1))
            return n.op("Slice", x, n.ints(begin), n.ints(end), n.ints(1)), end - begin, h, w
        if form == 3 and c >= 2:
            first = int(self.rng.integers(1, c))
            a, b = n.op("Split", x, n.ints(first, c - first), outputs=2, axis=1)
            self.values.append((a, first, h, w))
            return b, c - first, h, w
        if form == 4 and c % 2 == 0:
            y = n.op("Transpose", n.op("Reshape", x, n.ints(0, 2, c // 2, h, w)), perm=[0, 2, 1, 3, 4])
            return n.op("Reshape", y, n.ints(0, c, h, w)), c, h, w
        if form == 5 and c % 4 == 0:
            return n.op("DepthToSpace", x, blocksize=2), c // 4, 2 * h, 2 * w
        return None

    def head(self):
        x, c, h, w = self.values[-1]
        n, m = self.n, int(self.rng.integers(2, 6))
        if self.chance(0.5):
            y, k = n.op("Flatten", n.op("GlobalAveragePool", x)), c
        else:
            y, k = n.op("Flatten", x), c * h * w
        if k > 3000:
            return
        if self.chance(0.3):
            y = n.bn(y, k, values=[self.scales(k), self.shifts(k), self.shifts(k), self.rng.uniform(0.3, 2, k)])
        y = n.op("MatMul", y, self.weight(k, m)) if self.chance(0.3) else n.gemm(y, k, m)
        if self.chance(0.5):
            y = n.bn(y, m, values=[self.scales(m), self.shifts(m), self.shifts(m), self.rng.uniform(0.3, 2, m)])
        n.output(y)

    def model(self):
        steps = [self.conv] * 3 + [self.affine] * 4 + [self.activation] * 2 + [self.pool, self.add, self.concat, self.move]
        for _ in range(int(self.rng.integers(4, 16))):
            made = steps[int(self.rng.integers(len(steps)))](self.pick())
            if made is not None:
                self.values.append(made)
        if self.chance(0.4):
            self.head()
        used = {i for node in self.n.nodes for i in node.input}
        ends = [v[0] for v in self.values[1:] if v[0] not in used]
        middle = [v[0] for v in self.values[1:] if v[0] in used and self.chance(0.08)]
        self.n.output(*ends, *middle)
        return self.n.model()


def make(seed):
    while True:  # a few seeds grow nothing
        maker = Maker(seed)
        model = maker.model() if len(maker.values) else None
        if model.graph.node:
            return model
        seed += 1_000_000_007


def check(crease, seed, folder):
    model = make(seed)
    feeds = {"x": (np.random.default_rng(seed).standard_normal((2, 4, 10, 10)) + 0.5).astype(np.float32)}
    source = save(model, folder / f"{seed}.onnx")
    folded = crease.fold(source, str(folder / f"{seed}.folded.onnx"))
    onnx.checker.check_model(onnx.load(folded))
    want, got, ours = judge(source, feeds), judge(folded, feeds), crease.run(source, feeds)
    floor = noise(source, feeds, want)
    assert list(got) == list(want)
    for name in want:
        allowed = max(2e-5, 30 * floor[name])
        assert relative_error(got[name], want[name]) <= allowed, f"seed {seed}: folded file, output {name}"
        assert relative_error(ours[name], want[name]) <= allowed, f"seed {seed}: crease run, output {name}"
    return len(affine_nodes(model)), len(affine_nodes(onnx.load(folded)))


@pytest.mark.parametrize("first", range(FIRST, FIRST + COUNT, BATCH_OF_SEEDS))
def test_random_graphs(crease, tmp_path, first):
    before = after = 0
    for seed in range(first, min(first + BATCH_OF_SEEDS, FIRST + COUNT)):
        b, a = check(crease, seed, tmp_path)
        before, after = before + b, after + a
    assert after < 0.75 * before, f"only {before - after} of {before} affine nodes folded"


if __name__ == "__main__":
    onnx.save(make(int(sys.argv[1])), sys.argv[2])
