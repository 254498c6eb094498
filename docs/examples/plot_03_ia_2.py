"""
[IA] Fig 2: nonlinear functionals of polynomial memory
======================================================

tanh RNNs learn tanh(∫ρ(t-s) x(s) ds), ρ(t) = (1 + t)^-1.5. Wider models are more accurate and less robust: unstable, as in the
linear case.

The whole figure, its settings and its claims: :ref:`claims-ia-2`. Compute it again by
``python scripts/reproduce_figures.py ia-2``.
"""

from pathlib import Path

import matplotlib.pyplot as plt

from analysis import PerturbationCurve, judge_stable_approximation
from analysis.perturbation.picture import draw_perturbation
from odernn import json_values
from targets import kernels

data = json_values.loads(Path("../../reproduction/ia-2/data.json").read_text())
first = data["families"][0]  # seed 0
curves = [PerturbationCurve.from_dict(curve) for curve in first["curves"]]
shortest = min(curve.horizon for curve in curves)

_, panels = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for axes, block in zip(panels, ("recurrent", "all")):
    shown = [curve for curve in curves if curve.block_choice == block and curve.horizon == shortest]
    draw_perturbation(axes, shown, title=f"worst case, {block} weights")
for block, judged in judge_stable_approximation(curves, kernels.polynomial(exponent=1.5)).blocks.items():
    print(block, "weights:", judged)
