"""
[IA] Fig 9: images from identical recurrent matrices
====================================================

RNNs with W = P^T diag(f(w)) P classify handwritten digits, fed pixel by pixel, all from the same W, with rates down to 1/T. At
this learning rate the raw eigenvalues fall behind: a step moves the slow ones by far more than they are. Lines are means over
five seeds, bands from the worst to the best.

The whole figure, its settings and its claims: :ref:`claims-ia-9`. Compute it again by
``python scripts/reproduce_figures.py ia-9``.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from odernn import json_values

data = json_values.loads(Path("../../reproduction/ia-9/data.json").read_text())
runs = [one for one in data["sets"][0]["runs"] if one["learning_rate"] == 0.005 and one["slowest"] < 0.01]
_, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
for name in ("direct", "exp", "softplus", "inverse"):
    accuracy = np.array([one["test_accuracy"] for one in runs if one["parameterization"] == name])  # (seed, epoch)
    epochs = np.arange(1, accuracy.shape[1] + 1)
    axes.plot(epochs, accuracy.mean(0), label=name)
    axes.fill_between(epochs, accuracy.min(0), accuracy.max(0), alpha=0.2, lw=0)
axes.set(xlabel="epoch", ylabel="accuracy on test digits")
axes.legend()
