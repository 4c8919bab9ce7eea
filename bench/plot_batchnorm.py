#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draws what peers_batchnorm.py --json wrote: every engine's time over Crease's, a bar a case.

  plot_batchnorm.py RESULTS.json... -o OUT.svg [--threads 2] [--best]

Needs, by pip: matplotlib. Above 1: slower than Crease. The dashed line is Crease; `bound` is peers_batchnorm.py's. Of cases
that several files have, the last one counts.
"""
import argparse
import json

import matplotlib
matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402

from peers_batchnorm import SHAPES, bound_of  # noqa: E402

COLOURS = {"torch": "#ee4c2c", "onednn": "#0071c5", "ort": "#7f7f7f", "openvino": "#6a3d9a", "bound": "#2ca02c"}


TICKS = [0.25, 0.5, 1, 2, 4, 8, 16]


def times(row, which):
    ms = {engine: value[which] for engine, value in row["engines"].items() if which in value}
    bound = bound_of((row["shape"], row["mode"], row["layout"], row["threads"]), ms)
    return ms | ({"bound": bound} if bound else {})


def rows_of(files, threads):
    """By case, in the order of SHAPES."""
    rows = {}
    for file in files:
        with open(file) as f:
            rows |= {(row["mode"], row["layout"], row["shape"]): row for row in json.load(f) if row["threads"] == threads}
    return [rows[key] for key in sorted(rows, key=lambda key: (*key[:2], SHAPES.index(key[2])))]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--best", action="store_true", help="least times instead of medians")
    a = parser.parse_args()
    rows = rows_of(a.results, a.threads)
    plt.rcParams.update({"svg.hashsalt": "crease", "svg.fonttype": "none"})  # the same data, the same file; a small one
    groups = sorted({(row["mode"], row["layout"]) for row in rows})
    figure, axes = plt.subplots(len(groups), 1, figsize=(9, 2.1 * len(groups)), squeeze=False)
    for axis, (mode, layout) in zip(axes[:, 0], groups):
        cases = [row for row in rows if (row["mode"], row["layout"]) == (mode, layout)]
        for i, row in enumerate(cases):
            ms = times(row, "least_ms" if a.best else "ms")
            shown = [e for e in COLOURS if e in ms and "crease" in ms]
            for k, engine in enumerate(shown):
                axis.bar(i + (k - (len(shown) - 1) / 2) * 0.15, ms[engine] / ms["crease"], 0.14, color=COLOURS[engine])
        axis.axhline(1, color="black", linestyle="--", linewidth=1)
        axis.set_yscale("log", base=2)
        axis.set_ylim(TICKS[0], TICKS[-1])
        axis.set_yticks(TICKS, [str(tick) for tick in TICKS])
        axis.set_xticks(range(len(cases)), [row["shape"] for row in cases])
        axis.set_title(f"{mode}, {layout}, {a.threads} threads: time over Crease's", loc="left", fontsize=10)
    figure.legend([plt.Rectangle((0, 0), 1, 1, color=c) for c in COLOURS.values()], list(COLOURS), loc="upper right",
                  ncol=len(COLOURS), fontsize=8)
    figure.tight_layout()
    figure.savefig(a.output, metadata={"Date": None})


if __name__ == "__main__":
    main()
