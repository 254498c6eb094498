"""
[IA] Fig 3: what is approximated stably has exponential memory
==============================================================

Random RNNs as teachers. Their own memory functions are drawn here: those that students approximate stably fall exponentially.

The whole figure, its settings and its claims: :ref:`claims-ia-3`. Compute it again by
``python scripts/reproduce_figures.py ia-3``.
"""

from pathlib import Path

import matplotlib.pyplot as plt

from odernn import json_values

data = json_values.loads(Path("../../reproduction/ia-3/data.json").read_text())
_, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
for memory in data["memories"]:
    kind = memory["target"]["teacher"]
    axes.semilogy(memory["times"], memory["values"], label=f"{kind} {memory['target']['seed']}: {memory['law']}", lw=1)
axes.set(xlabel="time $t$", ylabel="$M(t)$ of the teacher", xlim=(0, 100), ylim=(1e-9, 10))
axes.legend(fontsize=6, ncols=2)
