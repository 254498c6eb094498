"""
[IA] Fig 10: memory functions of random networks
================================================

RNN, GRU, LSTM and S4D as they are initialised: mean over seeds of M(t), with its spread. All forget exponentially.

The whole figure, its settings and its claims: :ref:`claims-ia-10`. Compute it again by
``python scripts/reproduce_figures.py ia-10``.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from odernn import json_values

data = json_values.loads(Path("../../reproduction/ia-10/data.json").read_text())
_, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
for panel in data["panels"]:
    if panel["layers"] == 1:
        curve = next(one for one in panel["curves"] if one["probe"] == "heaviside")
        t, mean, deviation = (np.array(curve[key]) for key in ("times", "mean", "deviation"))  # of log10 M over seeds
        axes.semilogy(t, 10**mean, label=panel["kind"])
        axes.fill_between(t, 10 ** (mean - deviation), 10 ** (mean + deviation), alpha=0.2, lw=0)
axes.set(xlabel="samples", ylabel="$M(t)$")
axes.legend()
