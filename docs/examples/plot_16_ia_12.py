"""
[IA] Fig 12: a random transformer as a target
=============================================

Memory functions of random transformers, which attend to their whole past, and of variants with attention to a window of it, or
weighted by a law of the distance. What students cannot learn of the first is not its memory.

The whole figure, its settings and its claims: :ref:`claims-ia-12`. Compute it again by
``python scripts/reproduce_figures.py ia-12``.
"""

from pathlib import Path

import matplotlib.pyplot as plt

from odernn import json_values

data = json_values.loads(Path("../../reproduction/ia-12/data.json").read_text())
_, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
for memory in data["memories"]:
    kind = memory["target"]["teacher"]
    colour = f"C{['transformer', 'windowed-transformer', 'exponential-transformer', 'power-transformer'].index(kind)}"
    known = kind in axes.get_legend_handles_labels()[1]
    axes.semilogy(memory["times"], memory["values"], color=colour, lw=1, label=None if known else kind)
axes.set(xlabel="time $t$", ylabel="$M(t)$ of the target", xscale="log", xlim=(1, 3300))
axes.legend()
