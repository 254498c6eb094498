"""The papers' figures and tables, computed again: the same as `odernn reproduce`."""

from odernn_commands.main import start

if __name__ == "__main__":
    start("reproduce")
