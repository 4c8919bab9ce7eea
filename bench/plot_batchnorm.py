#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draws what peers_batchnorm.py --json wrote: every engine's time over Crease's, a bar a case.

  plot_batchnorm.py RESULTS.json -o OUT.svg [--threads 2] [--best]

Needs, by pip: matplotlib. Above 1: slower than Crease. The dashed line is Crease; `bound` is the time of a bare copy.
"""
import argparse
import json

import matplotlib
matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402

COLOURS = {"torch": "#ee4c2c", "onednn": "#0071c5", "ort": "#7f7f7f", "openvino": "#6a3d9a", "bound": "#2ca02c"}


def times(row, which):
    ms = {engine: value[which] for engine, value in row["engines"].items() if which in value}
    copies = [ms[e] for e in ("memcpy", "stream_copy") if e in ms]
    if copies and row["mode"] == "eval":
        ms["bound"] = min(copies)
    return ms


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--best", action="store_true", help="least times instead of medians")
    a = parser.parse_args()
    with open(a.results) as f:
        rows = [row for row in json.load(f) if row["threads"] == a.threads]
    plt.rcParams.update({"svg.hashsalt": "crease", "svg.fonttype": "none"})  # the same data, the same file; a small one
    groups = sorted({(row["mode"], row["layout"]) for row in rows})
    figure, axes = plt.subplots(len(groups), 1, figsize=(9, 2.4 * len(groups)), squeeze=False)
    for axis, (mode, layout) in zip(axes[:, 0], groups):
        cases = [row for row in rows if (row["mode"], row["layout"]) == (mode, layout)]
        for i, row in enumerate(cases):
            ms = times(row, "least_ms" if a.best else "ms")
            shown = [e for e in COLOURS if e in ms and "crease" in ms]
            for k, engine in enumerate(shown):
                axis.bar(i + (k - (len(shown) - 1) / 2) * 0.15, ms[engine] / ms["crease"], 0.14, color=COLOURS[engine])
        axis.axhline(1, color="black", linestyle="--", linewidth=1)
        axis.set_yscale("log")
        axis.set_xticks(range(len(cases)), [row["shape"] for row in cases])
        axis.set_title(f"{mode}, {layout}, {a.threads} threads: time over Crease's", loc="left", fontsize=10)
    figure.legend([plt.Rectangle((0, 0), 1, 1, color=c) for c in COLOURS.values()], list(COLOURS), loc="upper right",
                  ncol=len(COLOURS), fontsize=8)
    figure.tight_layout()
    figure.savefig(a.output, metadata={"Date": None})


if __name__ == "__main__":
    main()
