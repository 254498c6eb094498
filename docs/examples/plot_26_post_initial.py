"""
Initial spectra and the best readout on them
============================================

The distance of (1 + t)^-1.5 on [0, 100] from the span of the modes that models of the literature start with.

The whole figure, its settings and its claims: :ref:`claims-post-initial`. Compute it again by
``python scripts/reproduce_figures.py post-initial``.
"""

import matplotlib.pyplot as plt
import pandas as pd

rows = pd.read_csv("../../reproduction/post-initial/data.csv")
_, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
chosen = rows[(rows.kernel == "polynomial:exponent=1.5") & (rows.horizon == 100) & (rows.seed == 0)]
for name in ("geometric", "linear", "s4d_real", "s4d_inv", "s4d_lin", "lru"):
    of_one = chosen[chosen.spectrum == name].sort_values("m")
    axes.semilogy(of_one.m, of_one.error, "o-", label=name)
axes.set(xlabel="states m", ylabel="relative error of the best readout")
axes.legend()
