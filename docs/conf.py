"""Builds the site: `pip install -e ".[docs]" && sphinx-build -W -n docs site`. Needs no network."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import odernn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))

project = "odernn"
author = copyright = "The odernn authors"
version = release = odernn.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "myst_nb",
    # Ours:
    "plain_docstrings",
    "public_names",
    "mathml",
    "papers",
    "reproduction",
    "small_pictures",
]
# sphinx-gallery leaves a notebook and a script beside each of its pages.
exclude_patterns = ["examples/*", "inventories/*", "_*", *(f"gallery/*.{kind}" for kind in ("ipynb", "py", "json", "md5", "zip"))]
templates_path = ["_templates"]
default_role = "name"  # of public_names: a link where the site has that name, else code
nitpicky = True
# A kind of page of which there is none yet; the warning has no type by which it could be suppressed.
logging.getLogger("sphinx.sphinx.directives.other").addFilter(lambda record: "didn't match any" not in str(record.msg))

# --- look --------------------------------------------------------------------------------------------------

html_theme = "furo"
html_title = "odernn"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_math_renderer = "mathml"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = False
pygments_style, pygments_dark_style = "default", "github-dark"

# --- pages -------------------------------------------------------------------------------------------------

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 4
nb_execution_mode = "cache"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_execution_in_temp = True  # what a page writes is no page
nb_output_stderr = "remove"  # the first run on a machine says that it compiles kernels

# --- API ---------------------------------------------------------------------------------------------------

autosummary_generate = True
autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 90
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_param = napoleon_use_rtype = False  # "input_size, hidden_size: as for ..." stays one entry

# Plain text, with the names in use alone: see inventories/README.md.
intersphinx_mapping = {
    "python": ("https://docs.python.org/3/", "inventories/python.inv"),
    "numpy": ("https://numpy.org/doc/stable/", "inventories/numpy.inv"),
    "scipy": ("https://docs.scipy.org/doc/scipy/", "inventories/scipy.inv"),
    "matplotlib": ("https://matplotlib.org/stable/", "inventories/matplotlib.inv"),
    "pandas": ("https://pandas.pydata.org/docs/", "inventories/pandas.inv"),
    "torch": ("https://docs.pytorch.org/docs/stable/", "inventories/torch.inv"),
}

# --- gallery -----------------------------------------------------------------------------------------------

sphinx_gallery_conf = {
    "examples_dirs": ["examples"],
    "gallery_dirs": ["gallery"],
    "filename_pattern": "/plot_",
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 1e6,
    "write_computation_times": False,
    "abort_on_example_error": True,
}
