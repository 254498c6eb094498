"""[SSM]: the figures of 'State-space models with layer-wise nonlinearity are universal approximators with exponential decaying
memory'."""
