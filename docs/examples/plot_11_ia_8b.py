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
from targets import kernels
from odernn import json_values

data = json_values.loads(Path("../../reproduction/ia-8b/data.json").read_text())
first = data["families"][0]  # seed 0
curves = [PerturbationCurve.from_dict(curve) for curve in first["curves"]]
shortest = min(curve.horizon for curve in curves)

_, panels = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for axes, block in zip(panels, ("recurrent", "all")):
    draw_perturbation(axes, [c for c in curves if c.block_choice == block and c.horizon == shortest], title=f"worst case, {block}")
for block, judged in judge_stable_approximation(curves, kernels.polynomial(exponent=1.1)).blocks.items():
    print(block, "weights:", judged)
