"""
[VEG]: sensitivity as memory grows
==================================

The mean square of dh/dw of one mode driven by white noise, against its rate r: directly it grows like 1/r³, with exp and
softplus like 1/r, with the inverse parameterisation not at all.

The whole figure, its settings and its claims: :ref:`claims-vanishing-gradients`. Compute it again by
``python scripts/reproduce_figures.py vanishing-gradients``.
"""

import matplotlib.pyplot as plt
import pandas as pd

rows = pd.read_csv("../../reproduction/vanishing-gradients/data.csv")
_, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
modes = rows[(rows.panel == "modes") & (rows.recurrence == "diagonal")]
for name, of_one in modes.groupby("parameterization"):
    axes.loglog(of_one.x, of_one.value, label=name)
axes.set(xlabel="rate of the mode", ylabel="E |dh/dw|²")
axes.legend()
