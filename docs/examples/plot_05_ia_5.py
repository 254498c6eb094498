"""
[IA] Fig 5: the memory of sentiment classifiers
===============================================

The log-odds of praise that LSTM classifiers see in one word, repeated. Each repetition changes them by less: the memory decays.

The whole figure, its settings and its claims: :ref:`claims-ia-5`. Compute it again by
``python scripts/reproduce_figures.py ia-5``.
"""

from pathlib import Path

import matplotlib.pyplot as plt

from odernn import json_values

data = json_values.loads(Path("../../reproduction/ia-5/data.json").read_text())
_, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
for model in data["models"]:
    if model["seed"] == 0:
        axes.plot(model["logits"]["good"], label=f"{model['name']}: 'good'")
        axes.plot(model["logits"]["bad"], "--", color=axes.lines[-1].get_color(), label="'bad'")
axes.set(xlabel="repetitions of the word", ylabel="log-odds of praise")
axes.legend(fontsize=7)
