"""
[IA] Fig 1a: exponential memory is approximated stably
======================================================

Linear RNNs of 2 to 14 units on ρ(t) = 0.9^t. Left as published: the error under random noise of size β on all weights. Right
the worst perturbation of the recurrent weights, on [0, 1000]. The radius, where a curve reaches half the target, is the same at
every width: the approximation is stable. The curves on the left cross ever further left all the same.

The whole figure, its settings and its claims: :ref:`claims-ia-1a`. Compute it again by
``python scripts/reproduce_figures.py ia-1a``.
"""

from pathlib import Path

import matplotlib.pyplot as plt

from analysis import PerturbationCurve, judge_stable_approximation
from analysis.perturbation.picture import draw_perturbation
from odernn import json_values
from targets import kernels

data = json_values.loads(Path("../../reproduction/ia-1a/data.json").read_text())
published = [PerturbationCurve.from_dict(curve) for curve in data["published"][0]]  # widths 2 to 14, seed 0
ours = [PerturbationCurve.from_dict(curve) for curve in data["ours"][0]]
recurrent = [curve for curve in ours if curve.block_choice == "recurrent" and curve.horizon == 1000]

_, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
draw_perturbation(left, published, title="random noise on all weights")
draw_perturbation(right, recurrent, title="worst case, recurrent weights")
print(judge_stable_approximation(ours, kernels.exponential(base=0.9)))
