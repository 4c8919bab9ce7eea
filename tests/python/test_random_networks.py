# SPDX-License-Identifier: Apache-2.0
"""Random networks of known blocks, at sizes for which fast kernels and the runtime's fusions are chosen.

Judged by ONNX Runtime; the same bits are wanted at one thread and two, and `--exact` as near.
CREASE_RANDOM_NETWORKS sets how many (default 40), CREASE_RANDOM_SEED where the seeds start (default 0). A failure names
its seed; `test_random_networks.py SEED FILE.onnx` writes that network.
"""
import os
import sys

import numpy as np
import onnx
import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from helpers import REPO, judge, noise, relative_error, save  # noqa: E402

sys.path.insert(0, f"{REPO}/bench")
from patterns import Net  # noqa: E402

COUNT = int(os.environ.get("CREASE_RANDOM_NETWORKS", "40"))
FIRST = int(os.environ.get("CREASE_RANDOM_SEED", "0"))
BATCH_OF_SEEDS = 5
CHANNELS = (3, 7, 8, 12, 16, 24, 30, 32, 40, 48, 64, 66, 96, 128, 160)
MOST_VALUES = 400_000  # of one image's map


class Maker:
    """A value is (name, channels, height, width)."""

    def __init__(self, seed):
        self.n = Net(seed)
        self.rng = self.n.rng
        self.batch = int(self.rng.choice([1, 1, 2, 3]))
        c, h = int(self.rng.choice([1, 3, 3, 3, 4, 16])), int(self.rng.integers(9, 65))
        w = h if self.chance(0.5) else int(self.rng.integers(9, 65))
        self.size = (self.batch, c, h, w)
        self.act = self.choice("Relu", "Relu", "Relu6", "HardSwish", "Silu", "LeakyRelu", "Elu", "Mish")
        self.x = self.conv((self.n.input(*self.size), c, h, w), self.channels(), self.choice(3, 3, 5, 7), self.choice(1, 2))

    def chance(self, p):
        return self.rng.random() < p

    def choice(self, *options):
        return options[int(self.rng.integers(len(options)))]

    def channels(self):
        return int(self.rng.choice(CHANNELS))

    def op(self, v, kind, *inputs, **attributes):
        return (self.n.op(kind, v[0], *inputs, **attributes), *v[1:])

    def bn(self, v):
        c = v[1]
        values = [self.rng.uniform(0.5, 1.5, c), self.rng.normal(0, 0.3, c), self.rng.normal(0, 0.3, c), self.rng.uniform(0.5, 2, c)]
        return self.n.bn(v[0], c, values=values), *v[1:]

    def activate(self, v, kind=None):
        kind = kind or self.act
        if kind == "Relu6":
            return self.op(v, "Clip", self.n.const(0), self.n.const(6))
        if kind == "Silu":
            return self.op(v, "Mul", self.n.op("Sigmoid", v[0]))
        if kind == "Mish":
            return self.op(v, "Mul", self.n.op("Tanh", self.n.op("Softplus", v[0])))
        return self.op(v, kind)

    def conv(self, v, c_out, kernel=1, stride=1, group=1, act=True, norm=True, dilation=1):
        """Convolution, batch-norm, activation; `kernel`: one size or (height, width). Same padding, or nearly."""
        x, c, h, w = v
        kh, kw = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        reach = (dilation * (kh - 1), dilation * (kw - 1))
        pads = [reach[0] // 2, reach[1] // 2, reach[0] - reach[0] // 2, reach[1] - reach[1] // 2]
        if self.chance(0.1) and min(h, w) > max(reach) + 2:
            pads = [0] * 4
        bias = [self.n.const(self.rng.normal(0, 0.3, c_out))] if not norm or self.chance(0.2) else []
        weight = self.n.const(self.rng.normal(0, (2 / (c // group * kh * kw)) ** 0.5, (c_out, c // group, kh, kw)))
        y = self.n.op("Conv", x, weight, *bias, strides=[stride] * 2, pads=pads, group=group, dilations=[dilation] * 2)
        size = [(s + pads[i] + pads[i + 2] - reach[i] - 1) // stride + 1 for i, s in enumerate((h, w))]
        v = (y, c_out, *size)
        v = self.bn(v) if norm else v
        return self.activate(v) if act else v

    def same(self, v, y):
        return v[1:] == y[1:]

    def join(self, v, y):
        """The residual, if it fits; the activation before or after it."""
        if not self.same(v, y):
            return y
        if self.chance(0.5):
            return self.activate(self.op(y, "Add", v[0]))
        return self.op(v, "Add", y[0])

    def pooled(self, v):
        if self.chance(0.5):
            return self.n.op("GlobalAveragePool", v[0])
        return self.n.op("ReduceMean", v[0], axes=[2, 3], keepdims=1)

    def gate(self, v):
        c, hidden = v[1], max(1, v[1] // self.choice(2, 4, 8))
        z = self.conv((self.pooled(v), c, 1, 1), hidden, act=False, norm=False)
        z = self.activate(z, self.choice("Relu", "Silu"))
        z = self.conv(z, c, act=False, norm=False)
        z = self.op(z, self.choice("Sigmoid", "HardSigmoid"))
        return self.op(v, "Mul", z[0])

    # Blocks.
    def plain(self, v):
        kernel = self.choice(1, 3, 3, 3, 5, (1, 7), (7, 1), (3, 1), (1, 3), 2, (3, 5))
        return self.conv(v, self.channels(), kernel, self.choice(1, 1, 2), dilation=self.choice(1, 1, 1, 2))

    def bottleneck(self, v):
        stride, hidden = self.choice(1, 1, 2), self.channels()
        c_out = v[1] if stride == 1 and self.chance(0.7) else self.channels()
        first = self.choice(1, stride)
        group = self.choice(*(g for g in (1, 1, 2, 4, 8, hidden // 8, hidden // 16) if g > 0 and hidden % g == 0))
        y = self.conv(v, hidden, 1, first)
        y = self.conv(y, hidden, 3, stride // first, group)
        y = self.conv(y, c_out, act=False)
        y = self.gate(y) if self.chance(0.3) else y
        short = v if stride == 1 and c_out == v[1] else self.conv(v, c_out, 1, stride, act=False)
        return self.join(short, y)

    def inverted(self, v):
        stride, hidden = self.choice(1, 1, 2), v[1] * self.choice(1, 2, 3)
        y = self.conv(v, hidden) if hidden > v[1] else v
        y = self.conv(y, hidden, self.choice(3, 3, 5, 7), stride, hidden, dilation=self.choice(1, 1, 1, 2))
        y = self.gate(y) if self.chance(0.4) else y
        y = self.conv(y, v[1] if self.chance(0.6) else self.channels(), act=False)
        return self.op(v, "Add", y[0]) if self.same(v, y) and self.chance(0.8) else y

    def preactivated(self, v):
        y = self.activate(self.bn(v), "Relu")
        y = self.conv(y, self.channels())
        y = self.conv(y, v[1], 3, act=False, norm=False)
        return self.op(v, "Add", y[0]) if self.same(v, y) else y

    def dense(self, v):
        for _ in range(self.choice(1, 2, 3)):
            y = self.conv(self.activate(self.bn(v), "Relu"), self.choice(16, 40), norm=False, act=False)
            y = self.conv(self.activate(self.bn(y), "Relu"), self.choice(8, 12, 32), self.choice(1, 3), norm=False, act=False)
            if y[2:] != v[2:]:
                return y
            v = (self.n.op("Concat", v[0], y[0], axis=1), v[1] + y[1], *v[2:])
        return v

    def transition(self, v):
        y = self.activate(self.bn(v), "Relu") if self.chance(0.7) else v
        y = self.conv(y, self.channels(), act=False, norm=False)
        return self.pool(y)

    def pool(self, v):
        x, c, h, w = v
        k, stride = self.choice((2, 2), (3, 2), (3, 1))
        if min(h, w) < 4:
            return v
        pad, ceil = (1 if k == 3 else 0), int(self.chance(0.3))
        kind = self.choice("MaxPool", "AveragePool")
        extra = {"count_include_pad": int(self.chance(0.5) and not ceil)} if kind == "AveragePool" else {}
        y = self.n.op(kind, x, kernel_shape=[k, k], strides=[stride] * 2, pads=[pad] * 4, ceil_mode=ceil, **extra)

        def out(s):
            n = (s + 2 * pad - k + (stride - 1 if ceil else 0)) // stride + 1
            return n - 1 if ceil and (n - 1) * stride >= s + pad else n
        return y, c, out(h), out(w)

    def shuffle(self, v):
        x, c, h, w = v
        if c % 4:
            return v
        a, b = self.n.op("Split", x, self.n.ints(c // 2, c // 2), outputs=2, axis=1)
        y = self.conv((b, c // 2, h, w), c // 2)
        y = self.conv(y, c // 2, 3, group=c // 2, act=False)
        y = self.conv(y, c // 2)
        if y[2:] != (h, w):
            return y
        z = self.n.op("Concat", a, y[0], axis=1)
        z = self.n.op("Transpose", self.n.op("Reshape", z, self.n.ints(0, 2, c // 2, h, w)), perm=[0, 2, 1, 3, 4])
        return self.n.op("Reshape", z, self.n.ints(0, c, h, w)), c, h, w

    def inception(self, v):
        parts = [self.conv(v, self.channels(), self.choice(1, 3, (1, 7), 5)) for _ in range(self.choice(2, 3))]
        pooled = self.n.op("AveragePool", v[0], kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=int(self.chance(0.5)))
        parts.append(self.conv((pooled, *v[1:]), self.channels()))
        parts = [p for p in parts if p[2:] == v[2:]]
        if not parts:
            return v
        return self.n.op("Concat", *(p[0] for p in parts), axis=1), sum(p[1] for p in parts), *v[2:]

    def pyramid(self, v):
        if min(v[2:]) < 4 or any(s % 2 for s in v[2:]):
            return v
        low = self.conv(v, v[1], 3, 2)
        if low[2:] != (v[2] // 2, v[3] // 2):
            return v
        if self.chance(0.3):
            up = self.n.op("ConvTranspose", low[0], self.n.const(self.rng.normal(0, 0.2, (v[1], v[1], 2, 2))), strides=[2, 2])
            return self.activate((self.n.op("Add", v[0], up), *v[1:]))
        mode = self.choice("nearest", "linear")
        transform = "asymmetric" if mode == "nearest" else "half_pixel"
        up = self.n.op("Resize", low[0], "", self.n.const([1, 1, 2, 2]), mode=mode, nearest_mode="floor",
                       coordinate_transformation_mode=transform)
        return self.activate((self.n.op("Add", v[0], up), *v[1:]))

    def ghost(self, v):
        c = self.choice(8, 12, 24, 40)
        y = self.conv(v, c)
        z = self.conv(y, c, 3, group=c)
        if z[2:] != y[2:]:
            return z
        return self.n.op("Concat", y[0], z[0], axis=1), 2 * c, *y[2:]

    def head(self, v):
        n = self.n
        y = self.conv(v, self.channels()) if self.chance(0.3) else v
        c, m = y[1], self.choice(5, 10, 100)
        z = n.op("Flatten", self.pooled(y))
        z = n.gemm(z, c, m) if self.chance(0.5) else n.op("MatMul", z, n.const(n.normal(c, m)))
        return n.op("Softmax", z, axis=-1) if self.chance(0.3) else z

    def model(self):
        blocks = [self.plain, self.plain, self.bottleneck, self.bottleneck, self.inverted, self.inverted, self.preactivated,
                  self.dense, self.transition, self.pool, self.shuffle, self.inception, self.pyramid, self.ghost]
        v = self.x
        for _ in range(int(self.rng.integers(2, 7))):
            if v[1] * v[2] * v[3] > MOST_VALUES or v[1] > 300:
                v = self.conv(v, self.choice(8, 16, 32))
            made = self.choice(*blocks)(v)
            if self.chance(0.05):
                self.n.output(made[0])  # read by what follows as well
            v = made
        self.n.output(self.head(v) if self.chance(0.5) else v[0])
        self.n.outputs = list(dict.fromkeys(self.n.outputs))
        return self.n.model()


def make(seed):
    maker = Maker(seed)
    return maker.model(), maker.size


def check(crease, seed, folder):
    model, size = make(seed)
    feeds = {"x": np.random.default_rng(seed).standard_normal(size).astype(np.float32)}
    source = save(model, folder / f"{seed}.onnx")
    want = judge(source, feeds)
    floor = noise(source, feeds, want)
    one, two = (crease.run(source, feeds, threads=threads) for threads in ("1", "2"))
    exact = crease.run(source, feeds, "--exact", threads="2")
    folded = judge(crease.fold(source, str(folder / f"{seed}.folded.onnx")), feeds)
    assert list(two) == list(want)
    for name in want:
        np.testing.assert_array_equal(one[name], two[name], f"seed {seed}, output {name}: not the same bits at 2 threads")
        allowed = max(1e-4, 30 * floor[name])
        for what, got in (("crease run", two), ("crease run --exact", exact), ("folded file", folded)):
            assert relative_error(got[name], want[name]) <= allowed, f"seed {seed}: {what}, output {name}"


@pytest.mark.parametrize("first", range(FIRST, FIRST + COUNT, BATCH_OF_SEEDS))
def test_random_networks(crease, tmp_path, first):
    for seed in range(first, min(first + BATCH_OF_SEEDS, FIRST + COUNT)):
        check(crease, seed, tmp_path)


if __name__ == "__main__":
    onnx.save(make(int(sys.argv[1]))[0], sys.argv[2])
