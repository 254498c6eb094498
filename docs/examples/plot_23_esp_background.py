"""
[ESP]: memory around a background
=================================

How much of an input is left in the output of a tanh RNN while another input drives it: the geometric mean over inputs, by lag.
From rest it forgets at the rate of its slowest mode; around large inputs it remembers longer.

The whole figure, its settings and its claims: :ref:`claims-esp-background`. Compute it again by
``python scripts/reproduce_figures.py esp-background``.
"""

import matplotlib.pyplot as plt
import pandas as pd

rows = pd.read_csv("../../reproduction/esp-background/data.csv")
_, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
for amplitude, of_one in rows[(rows.model == "rnn") & (rows.seed == 0)].groupby("amplitude"):
    axes.semilogy(of_one.lag, of_one.geometric_mean, label=f"amplitude {amplitude:g}")
axes.set(xlabel="lag t - s", ylabel="|dy_t / dx_s|, geometric mean")
axes.legend()
