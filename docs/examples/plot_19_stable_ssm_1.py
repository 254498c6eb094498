"""
[StableSSM] Fig 1: state-space models on polynomial memory
==========================================================

Diagonal state-space models on ρ(t) = (1 + t)^-1.1, with the eigenvalues as they are, and with the inverse parameterisation, λ =
-1 / (a w² + b).

The whole figure, its settings and its claims: :ref:`claims-stable-ssm-1`. Compute it again by
``python scripts/reproduce_figures.py stable-ssm-1``.
"""

from pathlib import Path

import matplotlib.pyplot as plt

from analysis import PerturbationCurve, judge_stable_approximation
from analysis.perturbation.picture import draw_perturbation
from odernn import json_values
from targets import kernels

data = json_values.loads(Path("../../reproduction/stable-ssm-1/data.json").read_text())


def first(**family):
    """The curves of seed 0 of this family on polynomial memory, all weights or the recurrent ones."""
    wanted = {"recurrence": "diagonal", "activation": "tanh", "seed": 0, **family}
    slow = [one for one in data["families"] if one["target"]["kernel"] == "polynomial:exponent=1.1"]
    curves = next(one["curves"] for one in slow if wanted.items() <= one["family"].items())
    return [PerturbationCurve.from_dict(curve) for curve in curves if curve["block_choice"] in ("recurrent", "all")]


pair = {"direct": first(), "inverse": first(parameterization="inverse")}
_, panels = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for axes, (name, curves) in zip(panels, pair.items()):
    shortest = min(curve.horizon for curve in curves)
    draw_perturbation(axes, [c for c in curves if c.block_choice == "recurrent" and c.horizon == shortest], title=name)
    verdict = judge_stable_approximation(curves, kernels.polynomial(exponent=1.1))
    print(f"{name}: {verdict.judgement} in the recurrent weights, {verdict.definition} in all")
