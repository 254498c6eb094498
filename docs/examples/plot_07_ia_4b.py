"""
[IA] Fig 4b: and so does the softplus
=====================================

As Fig 4a, with eigenvalues λ = -log(1 + e^w).

The whole figure, its settings and its claims: :ref:`claims-ia-4b`. Compute it again by
``python scripts/reproduce_figures.py ia-4b``.
"""

from pathlib import Path

import matplotlib.pyplot as plt

from analysis import PerturbationCurve, judge_stable_approximation
from analysis.perturbation.picture import draw_perturbation
from odernn import json_values
from targets import kernels

data = json_values.loads(Path("../../reproduction/ia-4b/data.json").read_text())
published = [PerturbationCurve.from_dict(curve) for curve in data["published"][0]]  # widths 2 to 14, seed 0
ours = [PerturbationCurve.from_dict(curve) for curve in data["ours"][0]]
recurrent = [curve for curve in ours if curve.block_choice == "recurrent" and curve.horizon == 1000]

_, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
draw_perturbation(left, published, title="random noise on all weights")
draw_perturbation(right, recurrent, title="worst case, recurrent weights")
print(judge_stable_approximation(ours, kernels.polynomial(exponent=1.1)))
