# SPDX-License-Identifier: Apache-2.0
"""One small network for each way in which an affine map per channel can meet its neighbours.

`PATTERNS` is what bench/pattern_table.py runs every folding tool on, and tests/python/test_patterns.py runs Crease on.
Each has `best`: how many affine nodes an exact folder must leave in the file. Where that is as many as there were, the
pattern is a trap: folding by the look of it changes the function.
"""
# In the table's order: each registers its patterns.
from . import backward, guises, through, forward, whole  # noqa: F401
from .builder import PATTERNS, Net, affine_nodes, random_inputs

__all__ = ["PATTERNS", "Net", "affine_nodes", "random_inputs"]
