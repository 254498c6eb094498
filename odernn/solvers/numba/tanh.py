"""tanh in single precision, as a rational function: its coefficients, for these kernels and Triton's.

x P(x^2) / Q(x^2) on [-FAR, FAR], beyond which tanh rounds to 1. Of the functions of these degrees it has the smallest relative
error there, 2.2e-8, and slope 1 at 0 (by Lawson's iteration); rounding adds up to 4 units in the last place.
"""

FAR = 9.01
P1, P2, P3, P4 = 1.3383331583821567e-1, 3.4982242192173716e-3, 2.0648496013732013e-5, 1.3401985742771164e-8
Q1, Q2, Q3, Q4 = 4.671665294986188e-1, 2.5887273707458077e-2, 3.289773400590183e-4, 7.79746175446661e-7
