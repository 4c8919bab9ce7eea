#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes PyTorch's batch normalization, in every option combination, as golden cases for the C++ tests.

  make_bn_golden.py [OUT_FOLDER]      default: tests/data; needs torch==2.13.0 and numpy

Two files:

batchnorm_golden.npz (not compressed) has one flat array for each storage type: `f64`, `f32`, `u16`, little-endian. `u16`
has the bit patterns of bf16 and f16 values.

batchnorm_golden.json says what lies where. Its `cases` is a list of

  name                  unique
  rank                  1, 2, 3: BatchNorm1d, 2d, 3d
  num_features, eps, affine, track_running_stats
  momentum              number, or null: cumulative moving average
  dtype                 of x and y: "f32", "f64", "bf16", "f16"
  param_dtype           of weight, bias and running statistics: as dtype, or "f32" (mixed, for bf16 and f16)
  unbatched             x is (C, spatial...): PyTorch was given x[None], and y[0] taken
  exact                 y and the statistics were computed in float64 from the stored x, whatever dtype says
  weight, bias          present if affine
  running_mean, running_var      before the first step; present if track_running_stats
  steps                 in order, on one module; each has
    training            train() or eval()
    x, y                input and output, dense, axes (N, C, spatial...)
    running_mean, running_var, num_batches_tracked      after the step; present if track_running_stats

and `errors` a list of {name, rank, num_features, training, shape, pytorch}: what PyTorch says for an input of that shape.

An array is written as [type, offset, shape]: elements offset ... offset + product(shape) of the flat array, of `u16` for
"bf16" and "f16". Equal arrays are stored once.

Memory layout is no option here: channels_last was run as well and agreed (the script fails if not), so each case is to
be run in every layout. In PyTorch the statistics of a module that was cast to bf16 are rounded to bf16 at every step;
a runtime that keeps them in f32 is to be compared within bf16's precision.
"""
import json
import os
import sys

import numpy as np
import torch

MODULES = {1: torch.nn.BatchNorm1d, 2: torch.nn.BatchNorm2d, 3: torch.nn.BatchNorm3d}
TORCH = {"f64": torch.float64, "f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
CHANNELS = 5
# Largest difference allowed between NCHW and channels_last, relative to the values' size.
LAYOUT_TOLERANCE = {"f64": 1e-14, "f32": 2e-6, "bf16": 1e-2, "f16": 2e-3}


class Store:
    """Flat arrays, one a storage type, that give back [type, offset, shape]."""

    def __init__(self):
        self.parts = {"f64": [], "f32": [], "u16": []}
        self.sizes = dict.fromkeys(self.parts, 0)
        self.seen = {}

    def add(self, t):
        kind = next(k for k, v in TORCH.items() if v == t.dtype)
        flat = t.detach().contiguous().reshape(-1)
        array = flat.view(torch.int16).numpy().view(np.uint16) if kind in ("bf16", "f16") else flat.numpy()
        key = (kind, tuple(t.shape), array.tobytes())
        if key not in self.seen:
            store = kind if kind in self.parts else "u16"
            self.seen[key] = [kind, self.sizes[store], list(t.shape)]
            self.parts[store].append(array.copy())
            self.sizes[store] += array.size
        return self.seen[key]

    def arrays(self):
        return {k: np.concatenate(v) for k, v in self.parts.items()}


def make_module(rank, channels, eps, momentum, affine, track, dtype, generator):
    module = MODULES[rank](channels, eps=eps, momentum=momentum, affine=affine, track_running_stats=track)
    if affine:
        with torch.no_grad():
            module.weight.copy_(torch.randn(channels, generator=generator) * 0.5 + 1)
            module.bias.copy_(torch.randn(channels, generator=generator))
    return module.to(TORCH[dtype])


def forward(module, x, unbatched, channels_last=False):
    x = x[None] if unbatched else x
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)
    y = module(x)
    return y[0] if unbatched else y


def state(module, store):
    if not module.track_running_stats:
        return {}
    return {"running_mean": store.add(module.running_mean), "running_var": store.add(module.running_var)}


def check_layouts(module_before, module, x, y, unbatched, kind):
    if (x.dim() + unbatched) not in (4, 5):
        return
    y2 = forward(module_before, x, unbatched, channels_last=True)
    pairs = [(y, y2)] + ([(module.running_mean, module_before.running_mean), (module.running_var, module_before.running_var)]
                         if module.track_running_stats else [])
    for a, b in pairs:
        a, b = a.double(), b.double()
        worst = float(((a - b).abs() / a.abs().clamp(min=1)).max())
        if worst > LAYOUT_TOLERANCE[kind]:
            raise SystemExit(f"PyTorch's channels_last differs by {worst:.1e} ({kind})")


def run_case(store, name, module, inputs, unbatched=False, exact=None):
    """`inputs`: (training, x) in order. `exact`: a float64 twin of `module` that computes instead of it."""
    import copy
    kind = next(k for k, v in TORCH.items() if v == inputs[0][1].dtype)
    param = module.weight if module.affine else module.running_mean
    case = {"name": name, "rank": next(r for r, m in MODULES.items() if type(module) is m),
            "num_features": module.num_features, "eps": module.eps, "momentum": module.momentum, "affine": module.affine,
            "track_running_stats": module.track_running_stats, "dtype": kind,
            "param_dtype": kind if param is None else next(k for k, v in TORCH.items() if v == param.dtype),
            "unbatched": unbatched, "exact": exact is not None}
    if module.affine:
        case |= {"weight": store.add(module.weight), "bias": store.add(module.bias)}
    case |= state(module, store)
    case["steps"] = []
    runner = exact or module
    with torch.no_grad():
        for training, x in inputs:
            runner.train(training)
            before = copy.deepcopy(runner)
            given = x.double() if exact else x
            y = forward(runner, given, unbatched)
            check_layouts(before, runner, given, y, unbatched, "f64" if exact else kind)
            step = {"training": training, "x": store.add(x), "y": store.add(y)} | state(runner, store)
            if runner.track_running_stats:
                step["num_batches_tracked"] = int(runner.num_batches_tracked)
            case["steps"].append(step)
    return case


def option_cases(store):
    """Train, train again (so that momentum shows), eval: for every combination of the options."""
    shapes = {1: [(4, CHANNELS), (2, CHANNELS, 7)], 2: [(2, CHANNELS, 2, 3), (CHANNELS, 3, 4)], 3: [(2, CHANNELS, 2, 1, 3)]}
    statistics = [(True, 0.1), (True, None), (False, 0.1)]
    for rank in (2, 1, 3):
        for shape in shapes[rank]:
            unbatched = rank == 2 and len(shape) == 3
            for kind, param in [("f32", "f32"), ("f64", "f64"), ("bf16", "f32"), ("f16", "f32"), ("bf16", "bf16"), ("f16", "f16")]:
                generator = torch.Generator().manual_seed(1000 * rank + len(shape))
                xs = [(torch.randn(shape, generator=generator, dtype=torch.float64) * s + m).to(TORCH[kind])
                      for s, m in [(2, 1), (0.5, -3), (1, 0)]]
                for affine in (True, False):
                    for track, momentum in statistics:
                        for eps in (1e-5, 1e-3):
                            if (rank != 2 or unbatched) and eps != 1e-5:
                                continue
                            if len(shape) == 2 and kind == param and kind in ("bf16", "f16"):
                                continue  # PyTorch rounds scale and shift to bf16 there: off by 10 bf16 units
                            if kind != param and not affine and not track:
                                continue  # nothing has param_dtype: the same as the plain case
                            module = make_module(rank, CHANNELS, eps, momentum, affine, track, param, generator)
                            name = (f"{rank}d_{'x'.join(map(str, shape))}_{kind}" + (f"_{param}params" if param != kind else "")
                                    + ("_affine" if affine else "") + (f"_momentum{momentum}" if track else "_batchstats")
                                    + f"_eps{eps:g}")
                            yield run_case(store, name, module, [(True, xs[0]), (True, xs[1]), (False, xs[2])], unbatched)


def documented_example(store):
    torch.manual_seed(42)
    x = torch.randn(2, 3, 4, 4) * 10 + 5
    return run_case(store, "documented_example", torch.nn.BatchNorm2d(3), [(True, x), (False, x)])


def hard_cases(store):
    """Large mean against deviation, a constant channel, two values a channel, one channel, a used momentum of 0 and 1."""
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(2, 2, 8, 8, generator=generator, dtype=torch.float64)
    for mean, deviation in [(1e4, 1e-2), (1e6, 1), (-1e-3, 1e-6)]:
        module = make_module(2, 2, 1e-5, 0.1, True, True, "f32", generator)
        values = (x * deviation + mean).float()
        yield run_case(store, f"mean{mean:g}_deviation{deviation:g}", module, [(True, values), (False, values)],
                       exact=twin(module))
    constant = x[:1].float().clone()
    constant[:, 0] = 3.25
    yield run_case(store, "constant_channel", make_module(2, 2, 1e-5, 0.1, True, True, "f32", generator),
                   [(True, constant), (False, constant)])
    for shape in [(2, 17, 1, 1), (1, 17, 1, 2)]:
        two = torch.randn(shape, generator=generator)
        yield run_case(store, "two_values_" + "x".join(map(str, shape)),
                       make_module(2, 17, 1e-5, 0.1, True, True, "f32", generator), [(True, two), (False, two)])
    one = torch.randn(3, 1, 5, 5, generator=generator)
    yield run_case(store, "one_channel", make_module(2, 1, 1e-5, 0.1, True, True, "f32", generator), [(True, one), (False, one)])
    for momentum in (0.0, 1.0):
        yield run_case(store, f"momentum{momentum:g}", make_module(2, 1, 1e-5, momentum, False, True, "f32", generator),
                       [(True, one), (False, one)])
    single = torch.randn(1, 3, 1, 1, generator=generator)
    yield run_case(store, "eval_of_one_value", make_module(2, 3, 1e-5, 0.1, True, True, "f32", generator), [(False, single)])


def twin(module):
    import copy
    return copy.deepcopy(module).double()


def error_cases():
    for name, rank, channels, training, shape in [
            ("channels", 2, 3, True, (2, 4, 5, 5)), ("channels_eval", 2, 3, False, (2, 4, 5, 5)),
            ("one_value", 2, 3, True, (1, 3, 1, 1)), ("one_value_1d", 1, 3, True, (1, 3)), ("rank_3_to_1d_4", 1, 3, True, (2, 3, 4, 4)),
            ("rank_2_to_2d", 2, 3, True, (2, 3)), ("rank_5_to_2d", 2, 3, True, (2, 3, 4, 4, 4)), ("rank_4_to_3d", 3, 3, True, (2, 3, 4, 4))]:
        try:
            MODULES[rank](channels).train(training)(torch.zeros(shape))
        except (ValueError, RuntimeError) as e:
            yield {"name": name, "rank": rank, "num_features": channels, "training": training, "shape": list(shape),
                   "pytorch": str(e).splitlines()[0]}
        else:
            raise SystemExit(f"PyTorch accepts {name}")


def main():
    default = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "data")
    out = sys.argv[1] if len(sys.argv) > 1 else default
    torch.set_num_threads(1)
    store = Store()
    cases = [documented_example(store), *hard_cases(store), *option_cases(store)]
    assert len({c["name"] for c in cases}) == len(cases)
    compact = lambda item: json.dumps(item, separators=(",", ":"))
    head = {"SPDX-License-Identifier": "Apache-2.0", "made_by": "tests/python/make_bn_golden.py",
            "torch": torch.__version__.split("+")[0], "arrays": "batchnorm_golden.npz"}
    os.makedirs(out, exist_ok=True)
    with open(f"{out}/batchnorm_golden.json", "w") as f:
        f.write("{" + compact(head)[1:-1] + ',\n"errors":[\n' + ",\n".join(map(compact, error_cases()))
                + '\n],\n"cases":[\n' + ",\n".join(map(compact, cases)) + "\n]}\n")
    np.savez(f"{out}/batchnorm_golden.npz", **store.arrays())
    print(f"{len(cases)} cases;", ", ".join(f"{name} {os.path.getsize(f'{out}/{name}')} bytes"
                                            for name in ("batchnorm_golden.json", "batchnorm_golden.npz")))


if __name__ == "__main__":
    main()
