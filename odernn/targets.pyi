# For type checkers: shadowing.py makes `odernn.targets` another name of the package beside this one.
from targets import *  # noqa: F403
