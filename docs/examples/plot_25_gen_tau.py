"""
[Gen]: a measure of generalisation
==================================

State-space models trained on 16 sequences each to give sin x(1/2): τ, from the kernel and the covariance of the inputs, against
the gap between the errors on new sequences and on those of the training.

The whole figure, its settings and its claims: :ref:`claims-gen-tau`. Compute it again by
``python scripts/reproduce_figures.py gen-tau``.
"""

import matplotlib.pyplot as plt
import pandas as pd

rows = pd.read_csv("../../reproduction/gen-tau/data.csv")
_, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
for length, of_one in rows[rows.target == "middle"].groupby("correlation"):
    axes.scatter(of_one.tau, of_one.gap, s=14, label=f"correlation time {length:g}")
axes.set(xscale="log", yscale="log", xlabel="τ after training", ylabel="test error - training error")
axes.legend()
