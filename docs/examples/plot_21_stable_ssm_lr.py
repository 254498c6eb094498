"""
[StableSSM] Table 2: the largest learning rate
==============================================

Final losses over learning rates. Where a line ends training diverged: stable parameterisations go on to larger rates.

The whole figure, its settings and its claims: :ref:`claims-stable-ssm-lr`. Compute it again by
``python scripts/reproduce_figures.py stable-ssm-lr``.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from odernn import json_values

data = json_values.loads(Path("../../reproduction/stable-ssm-lr/data.json").read_text())
runs = data["sets"][0]["runs"]
rates = sorted({one["learning_rate"] for one in runs})
_, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
for name in ("direct", "exp", "softplus", "inverse"):
    ours = [one for one in runs if one["parameterization"] == name]
    losses = [[one["test_loss"][-1] for one in ours if one["learning_rate"] == rate] for rate in rates]  # (rate, seed)
    axes.loglog(rates, np.mean(losses, axis=1), "o-", label=name)  # nan where a seed diverged
axes.set(xlabel="learning rate", ylabel="test loss after the last epoch")
axes.legend()
