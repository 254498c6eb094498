"""The papers' figures and tables, by name, in the papers' order."""

from __future__ import annotations

from .figure import Claim, Figure, Job, Options
from .ia_1 import IA_1A, IA_1B
from .ia_2 import IA_2
from .ia_3 import IA_3
from .ia_4 import IA_4A, IA_4B
from .ia_7 import IA_7A, IA_7B
from .ia_8 import IA_8A, IA_8B
from .ia_10 import FIGURE as IA_10
from .ia_11 import IA_11A, IA_11B
from .ia_12 import IA_12
from .readme_table import README_TABLE
from .ssm_depth import FIGURE as SSM_DEPTH
from .stable_ssm_1 import STABLE_SSM_1

__all__ = ["FIGURES", "Claim", "Figure", "Job", "Options"]

FIGURES: dict[str, Figure] = {
    figure.name: figure
    for figure in (
        IA_1A,
        IA_1B,
        IA_2,
        IA_3,
        IA_4A,
        IA_4B,
        IA_7A,
        IA_7B,
        IA_8A,
        IA_8B,
        IA_10,
        IA_11A,
        IA_11B,
        IA_12,
        README_TABLE,
        SSM_DEPTH,
        STABLE_SSM_1,
    )
}
