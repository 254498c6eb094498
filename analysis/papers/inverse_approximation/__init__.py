"""[IA]: the figures of 'Inverse approximation theory for nonlinear recurrent neural networks', and the table of its code."""
