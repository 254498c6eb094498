"""Computes figures from jobs, each job once, and writes what comes out with what was claimed."""
