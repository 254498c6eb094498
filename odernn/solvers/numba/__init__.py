"""Compiled solves on the CPU: Runge-Kutta steps and affine scans, each with its exact adjoint.

A *tile* is some rows of the batch of one ensemble member. It runs through all times on one core, its states in small
row-major buffers (rows, width), where width is m rounded up to whole vectors; the weights lie in memory the same way. All
buffers of a tile are parts of one scratch array `s`, named by where they start. Where a loop runs through several, each turn
loads before it stores: buffers often lie a multiple of 4096 bytes apart, and a load right after a store to the same place in
another such page waits for it. An *item* is a share of the tiles of one member: the unit of parallel work, with sums of weight
gradients of its own. Arrays come flat, in C order.

Loops are written in terms of SIMD vectors, not left to the compiler: that is worth a factor of 2 to 3 here.
"""
