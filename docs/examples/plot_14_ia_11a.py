"""
[IA] Fig 11a: memory that does not decay
========================================

tanh RNNs whose linearisation at rest is unstable, or only just not, remember for ever: M(t) ends on a level.

The whole figure, its settings and its claims: :ref:`claims-ia-11a`. Compute it again by
``python scripts/reproduce_figures.py ia-11a``.
"""

from pathlib import Path

import matplotlib.pyplot as plt

from odernn import json_values

data = json_values.loads(Path("../../reproduction/ia-11a/data.json").read_text())
_, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
for name, colour in (("unstable", "C3"), ("antisymmetric", "C0")):
    for k, one in enumerate(data[name]):
        label = f"{name}: Re λ = {one['abscissa']:.2g}" if k == 0 else None
        axes.plot(one["times"], one["values"], color=colour, lw=1, label=label)
axes.set(xlabel="time $t$", ylabel="$M(t)$")
axes.legend()
