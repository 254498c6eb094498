"""Perturbation errors of runs, and whether they approximate their target stably: the same as `odernn perturb`."""

from odernn_commands.main import start

if __name__ == "__main__":
    start("perturb")
