"""Sweeps: one model trained for each combination of settings, and a table of what came out."""
