"""Fused solves on the GPU: one Triton program takes a tile of the batch through all times, W and the states on chip.

Every W is taken as dense: on chip that costs next to nothing. The backward pass goes segment by segment of the time axis: first
the stages of all its intervals at once, which are left in memory with their slopes; then the adjoint, from interval to interval;
then the gradients of W and of the drive in large products. Adaptive solves (`adaptive`) go the same way, each program on steps
of its own. What the kernels take of a GPU: `ahead_of_time`.
"""
