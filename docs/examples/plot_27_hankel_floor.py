"""
[AAK], [Glover]: the floor under every linear model
===================================================

Hankel singular values of (1 + t)^-1.5 on [0, 100] put a floor under the error of every linear model of m states, however it was
found. Balanced truncations follow it down; trained models stop where their training does.

The whole figure, its settings and its claims: :ref:`claims-hankel-floor`. Compute it again by
``python scripts/reproduce_figures.py hankel-floor``.
"""

import matplotlib.pyplot as plt
import pandas as pd

rows = pd.read_csv("../../reproduction/hankel-floor/data.csv")
_, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
chosen = rows[rows.kernel == "polynomial:exponent=1.5"].groupby(["model", "width"]).relative_error.median()
for name in ("floor", "balanced truncation", "fit, direct", "trained, exp"):
    axes.semilogy(chosen[name][chosen[name] > 0], "o-", label=name)
axes.set(xlabel="width m", ylabel="relative L1 error")
axes.legend()
