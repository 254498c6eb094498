"""Train one model for each combination of settings: the same as `odernn sweep`."""

from odernn_commands.main import start

if __name__ == "__main__":
    start("sweep")
