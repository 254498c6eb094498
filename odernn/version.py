"""The version of this package, from which that of an installation is read."""

__version__ = "0.1.0"
