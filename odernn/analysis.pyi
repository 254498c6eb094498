# For type checkers: shadowing.py makes `odernn.analysis` another name of the package beside this one.
from analysis import *  # noqa: F403
