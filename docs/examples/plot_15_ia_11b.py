"""
[IA] Fig 11b: the phase plane of v = dh/dt
==========================================

Trajectories in the plane of v = dh/dt, a periodic orbit, and the equilibria with their eigenvalues: (1, 1) and (-1, -1),
published as attractors, are saddles.

The whole figure, its settings and its claims: :ref:`claims-ia-11b`. Compute it again by
``python scripts/reproduce_figures.py ia-11b``.
"""

from pathlib import Path

import matplotlib.pyplot as plt

from odernn import json_values

data = json_values.loads(Path("../../reproduction/ia-11b/data.json").read_text())
_, axes = plt.subplots(figsize=(4.5, 4.5), layout="constrained")
for path in data["trajectories"]["paths"]:
    axes.plot(*zip(*path["v"]), color="0.6", lw=0.8)
axes.plot(*zip(*data["periodic_orbit"]["v"]), "C3", label=f"orbit of period {data['periodic_orbit']['period']:.1f}")
for point in data["equilibria"]["points"]:
    axes.plot(*point["v"], "ko", ms=4)
    axes.annotate(point["stability"], point["v"], textcoords="offset points", xytext=(5, 5))
axes.set(xlabel="$v_1$", ylabel="$v_2$")
axes.legend(loc="lower left")
