#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains the digits network and writes digits.onnx and digits_test.npz beside this script.

Needs (all on PyPI): torch==2.13.0 onnx onnxruntime scikit-learn numpy. One thread, fixed seeds: the same machine and the
same versions give the same files. Takes about a minute.

The network is small, but has what a folder of batch-norms meets in real ones: plain conv blocks, a residual block, a
depthwise-separable block with ReLU6, max-pool, global average pool, and a fully connected layer. It is exported as
trained, with every BatchNormalization kept, for `crease fold` to have something to fold.
"""
import argparse
import os
import warnings

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 7
HELD_OUT = 450       # of 1797 images, stratified by digit
EPOCHS = 60
BATCH = 64
REQUIRED = 0.98


def conv_bn(inputs, outputs, kernel, groups=1):
    return [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs)]


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.body = nn.Sequential(*conv_bn(channels, channels, 3), nn.ReLU(), *conv_bn(channels, channels, 3))

    def forward(self, x):
        return F.relu(x + self.body(x))


class DigitsNet(nn.Module):
    """(N, 1, 8, 8) normalised images -> (N, 10) logits."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            *conv_bn(1, 24, 3), nn.ReLU(),
            Residual(24),
            *conv_bn(24, 48, 3), nn.ReLU(),
            nn.MaxPool2d(2),
            *conv_bn(48, 48, 3, groups=48), nn.ReLU6(),
            *conv_bn(48, 96, 1), nn.ReLU6(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 10))

    def forward(self, x):
        return self.layers(x)


def load_split():
    """Training and held-out images as float32 (N, 1, 8, 8), normalised with the training images' mean and deviation."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    digits = load_digits()
    images = digits.images.astype(np.float32)[:, None] / 16
    labels = digits.target.astype(np.int64)
    train, test, train_labels, test_labels = train_test_split(
        images, labels, test_size=HELD_OUT, random_state=SEED, stratify=labels)
    mean, std = float(train.mean()), float(train.std())
    print(f"{len(train)} training images, {len(test)} held out; normalised as (pixel / 16 - {mean:.4f}) / {std:.4f}")
    return (train - mean) / std, train_labels, (test - mean) / std, test_labels, (0 - mean) / std


def augment(x, background, generator):
    """Small random rotations, scalings and shifts, so that 1347 images are enough."""
    n = len(x)
    uniform = lambda low, high: torch.rand(n, generator=generator) * (high - low) + low
    angle, size = uniform(-0.2, 0.2), uniform(0.9, 1.1)
    theta = torch.stack([
        torch.stack([size * angle.cos(), -size * angle.sin(), uniform(-0.2, 0.2)], 1),
        torch.stack([size * angle.sin(), size * angle.cos(), uniform(-0.2, 0.2)], 1)], 1)
    grid = F.affine_grid(theta, x.shape, align_corners=False)
    return F.grid_sample(x - background, grid, align_corners=False) + background


def train(net, images, labels, background):
    generator = torch.Generator().manual_seed(SEED)
    images, labels = torch.from_numpy(images), torch.from_numpy(labels)
    steps = len(images) // BATCH
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=1e-2, total_steps=EPOCHS * steps)
    net.train()
    for epoch in range(EPOCHS):
        order = torch.randperm(len(images), generator=generator)
        total = 0.0
        for i in range(steps):
            pick = order[i * BATCH:(i + 1) * BATCH]
            loss = F.cross_entropy(net(augment(images[pick], background, generator)), labels[pick])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1:3d}  loss {total / steps:.4f}", flush=True)
    net.eval()


def flush_denormals(net):
    """A channel that ReLU keeps at zero has statistics that decay into denormals: slow, and they mean zero."""
    with torch.no_grad():
        for values in net.state_dict().values():
            if values.is_floating_point():
                values[values.abs() < torch.finfo(values.dtype).tiny] = 0


def export(net, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, torch.zeros(2, 1, 8, 8), path, dynamo=False, opset_version=17,
                          training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False,
                          input_names=["image"], output_names=["logits"],
                          dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}})
    import onnx
    model = onnx.load(path)
    model.doc_string = "8x8 handwritten digits (scikit-learn's load_digits); made by examples/digits/train.py"
    onnx.checker.check_model(model, full_check=True)
    kept = [n for n in model.graph.node if n.op_type == "BatchNormalization"]
    wanted = sum(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    if len(kept) != wanted or any(a.name == "training_mode" and a.i for n in kept for a in n.attribute):
        raise SystemExit(f"the exporter kept {len(kept)} of {wanted} batch-norms, or left some in training mode")
    onnx.save(model, path)


def check_export(path, images, want):
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    got = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(["logits"], {"image": images})[0]
    return float(np.abs(got - want).max())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=HERE, help="folder for digits.onnx and digits_test.npz")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)
    images, labels, test, test_labels, background = load_split()
    net = DigitsNet()
    train(net, images, labels, background)
    flush_denormals(net)
    with torch.no_grad():
        logits = net(torch.from_numpy(test)).numpy()
    right = int((logits.argmax(1) == test_labels).sum())
    print(f"held-out accuracy {100 * right / len(test):.2f} % ({right} of {len(test)})")
    if right < REQUIRED * len(test):
        raise SystemExit("too low: nothing written")
    export(net, f"{out}/digits.onnx")
    np.savez(f"{out}/digits_test.npz", image=test, labels=test_labels)
    print(f"ONNX Runtime differs from PyTorch by at most {check_export(f'{out}/digits.onnx', test, logits):.1e}")
    for name in ("digits.onnx", "digits_test.npz"):
        print(f"{name}: {os.path.getsize(f'{out}/{name}')} bytes")


if __name__ == "__main__":
    main()
