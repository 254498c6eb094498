"""
[CoM]: the plateau in training grows with the memory
====================================================

Gradient flow of linear RNNs on a target whose memory has a late part at time c: the loss waits on a plateau, for a time that
grows exponentially with c.

The whole figure, its settings and its claims: :ref:`claims-com-plateau`. Compute it again by
``python scripts/reproduce_figures.py com-plateau``.
"""

from pathlib import Path

import matplotlib.pyplot as plt

from odernn import json_values

data = json_values.loads(Path("../../reproduction/com-plateau/data.json").read_text())
_, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
for flow in data["flows"]:
    if flow["seed"] == 0:
        axes.loglog(flow["times"], flow["losses"], label=f"c = {flow['center']:g}")
axes.set(xlabel="training time", ylabel="loss")
axes.legend()
