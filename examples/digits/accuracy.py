#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints the accuracy of `crease run` on the held-out digits; exit 1 under 98 %.

  crease run digits.onnx --input digits_test.npz --output out.npz
  accuracy.py out.npz [digits_test.npz]

Needs numpy only.
"""
import os
import sys

import numpy as np

REQUIRED = 98.0


def main():
    if len(sys.argv) not in (2, 3) or sys.argv[1].startswith("-"):
        print(__doc__.strip(), file=sys.stderr)
        return 2
    here = os.path.dirname(os.path.abspath(__file__))
    labels_path = sys.argv[2] if len(sys.argv) == 3 else os.path.join(here, "digits_test.npz")
    with np.load(sys.argv[1]) as out, np.load(labels_path) as test:
        logits, labels = out["logits"], test["labels"]
    if logits.shape != (len(labels), 10):
        print(f"logits have shape {logits.shape}, expected ({len(labels)}, 10)", file=sys.stderr)
        return 1
    if not np.isfinite(logits).all():
        print("logits hold NaN or infinity", file=sys.stderr)
        return 1
    right = int((logits.argmax(axis=1) == labels).sum())
    percent = 100 * right / len(labels)
    print(f"accuracy {percent:.2f} % ({right} of {len(labels)} held-out digits)")
    return 0 if percent >= REQUIRED else 1


if __name__ == "__main__":
    sys.exit(main())
