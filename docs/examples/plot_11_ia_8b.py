"""
[IA] Fig 8b: tanh RNNs with softplus eigenvalues
================================================

As Fig 8a, with tanh. The radius falls like T^-0.3; with W = Λ it does not fall in the recurrent weights.

The whole figure, its settings and its claims: :ref:`claims-ia-8b`. Compute it again by
``python scripts/reproduce_figures.py ia-8b``.
"""

from pathlib import Path

import matplotlib.pyplot as plt

from analysis import PerturbationCurve, judge_stable_approximation
from analysis.perturbation.picture import draw_perturbation
from odernn import json_values
from targets import kernels

data = json_values.loads(Path("../../reproduction/ia-8b/data.json").read_text())
first = data["families"][0]  # seed 0
curves = [PerturbationCurve.from_dict(curve) for curve in first["curves"]]
shortest = min(curve.horizon for curve in curves)

_, panels = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for axes, block in zip(panels, ("recurrent", "all")):
    shown = [curve for curve in curves if curve.block_choice == block and curve.horizon == shortest]
    draw_perturbation(axes, shown, title=f"worst case, {block} weights")
for block, judged in judge_stable_approximation(curves, kernels.polynomial(exponent=1.1)).blocks.items():
    print(block, "weights:", judged)
