"""The papers' figures and tables, by name, in the papers' order."""

from __future__ import annotations

from .com_plateau import COM_PLATEAU
from .figure import Claim, Figure, Job, Options
from .ia_1 import IA_1A, IA_1B
from .ia_2 import IA_2
from .ia_3 import IA_3
from .ia_4 import IA_4A, IA_4B
from .ia_5 import IA_5
from .ia_7 import IA_7A, IA_7B
from .ia_8 import IA_8A, IA_8B
from .ia_9 import IA_9
from .ia_10 import FIGURE as IA_10
from .ia_11 import IA_11A, IA_11B
from .ia_12 import IA_12
from .readme_table import README_TABLE
from .ssm_depth import FIGURE as SSM_DEPTH
from .stable_ssm_1 import STABLE_SSM_1
from .stable_ssm_gradient import STABLE_SSM_GRADIENT
from .stable_ssm_lr import STABLE_SSM_LR

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
        IA_5,
        IA_7A,
        IA_7B,
        IA_8A,
        IA_8B,
        IA_9,
        IA_10,
        IA_11A,
        IA_11B,
        IA_12,
        README_TABLE,
        SSM_DEPTH,
        STABLE_SSM_1,
        STABLE_SSM_GRADIENT,
        STABLE_SSM_LR,
        COM_PLATEAU,
    )
}
