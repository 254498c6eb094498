"""
[StableSSM] 3.4: the gradient of a slow mode
============================================

The gradient of the loss in the raw weight w of a mode of rate r, and the bound of Theorem 3.6. Directly it grows like 1/r²; the
inverse parameterisation balances it.

The whole figure, its settings and its claims: :ref:`claims-stable-ssm-gradient`. Compute it again by
``python scripts/reproduce_figures.py stable-ssm-gradient``.
"""

from pathlib import Path

import matplotlib.pyplot as plt

from odernn import json_values

data = json_values.loads(Path("../../reproduction/stable-ssm-gradient/data.json").read_text())
_, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
for one in data["gradients"]:
    if one["seed"] == 0:
        axes.loglog(one["rates"], one["gradients"], label=one["parameterization"])
        axes.loglog(one["rates"], one["bounds"], ":", color=axes.lines[-1].get_color())
axes.set(xlabel="rate of the mode", ylabel="|gradient in w|, its bound dotted")
axes.legend()
