"""The memory function of a run, a module or any callable, and the law it decays by: the same as `odernn memory`."""

from odernn_commands.main import start

if __name__ == "__main__":
    start("memory")
