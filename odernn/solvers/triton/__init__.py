"""Fused solves on the GPU: one Triton program takes a tile of the batch through all times, W and the states on chip.

Every W is taken as dense: on chip that costs next to nothing. The backward pass goes segment by segment of the time axis: a
program leaves the stage states and adjoints of a segment in memory, and one large product sums the gradient of W from them.
"""
