"""The computations of the figures, one module an experiment: named jobs, settings in, JSON values out."""
