"""Time the solvers against their alternatives: the same as `odernn benchmark`."""

from odernn_commands.main import start

if __name__ == "__main__":
    start("benchmark")
