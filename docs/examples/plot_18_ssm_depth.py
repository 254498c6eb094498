"""
[SSM]: memory of state-space models of one to four layers
=========================================================

Random stacks of state-space layers, mean and deviation of log M over the seeds. More layers forget later, and still
exponentially.

The whole figure, its settings and its claims: :ref:`claims-ssm-depth`. Compute it again by
``python scripts/reproduce_figures.py ssm-depth``.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from odernn import json_values

data = json_values.loads(Path("../../reproduction/ssm-depth/data.json").read_text())
_, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
for depth in data["depths"]:
    t, mean, deviation = (np.array(depth["curve"][key]) for key in ("times", "mean", "deviation"))  # of log10 M over seeds
    axes.semilogy(t, 10**mean, label=f"layers: {depth['layers']}")
    axes.fill_between(t, 10 ** (mean - deviation), 10 ** (mean + deviation), alpha=0.2, lw=0)
axes.set(xlabel="time $t$", ylabel="$M(t)$")
axes.legend()
