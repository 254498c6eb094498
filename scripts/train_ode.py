"""Train a continuous-time model on a target functional of known memory: the same as `odernn train`."""

from odernn_commands.main import start

if __name__ == "__main__":
    start("train")
