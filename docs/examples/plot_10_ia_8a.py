"""
[IA] Fig 8a: hardtanh RNNs with softplus eigenvalues
====================================================

Bounded activations on polynomial memory, W = P^T Λ P with protected eigenvalues. P mixes slow and fast modes, and with T the
radius loses a part.

The whole figure, its settings and its claims: :ref:`claims-ia-8a`. Compute it again by
``python scripts/reproduce_figures.py ia-8a``.
"""

from pathlib import Path

import matplotlib.pyplot as plt

from analysis import PerturbationCurve, judge_stable_approximation
from analysis.perturbation.picture import draw_perturbation
from odernn import json_values
from targets import kernels

data = json_values.loads(Path("../../reproduction/ia-8a/data.json").read_text())
first = data["families"][0]  # seed 0
curves = [PerturbationCurve.from_dict(curve) for curve in first["curves"]]
shortest = min(curve.horizon for curve in curves)

_, panels = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for axes, block in zip(panels, ("recurrent", "all")):
    shown = [curve for curve in curves if curve.block_choice == block and curve.horizon == shortest]
    draw_perturbation(axes, shown, title=f"worst case, {block} weights")
for block, judged in judge_stable_approximation(curves, kernels.polynomial(exponent=1.1)).blocks.items():
    print(block, "weights:", judged)
