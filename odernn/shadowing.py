"""`odernn.targets` and `odernn.analysis`, and packages of the user's own that have the names of ours.

Others have folders called `targets` or `analysis`, too, and Python imports what it finds first. So ours are taken from beside
this package: `targets`, which this package needs, takes its name even where another would be found first; `analysis` leaves its
name to the other one and is `odernn.analysis` only.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
_NAMES = ("analysis", "targets")


def require_ours(name: str) -> None:
    """Refuses another package in the place of one of ours. It looks where an import would look, and runs nothing.

    Raises:
        ImportError: Python finds another one first; the message says which.
    """
    if (found := _other(name)) is not None:
        raise ImportError(
            f"{found} hides the package {name!r} that comes with odernn ({_ROOT / name}): rename it, or start Python where it is "
            "not found first (first come the folder of the script, or the working directory, and PYTHONPATH)",
            name=name,
            path=str(found),
        )


def _other(name: str) -> Path | None:
    """What Python has imported or would import by that name, unless it is ours."""
    loaded = sys.modules.get(name)
    spec = importlib.util.find_spec(name) if loaded is None else loaded.__spec__
    if spec is None:
        return None if loaded is None else Path(getattr(loaded, "__file__", None) or name)
    found = Path(next(iter(spec.submodule_search_locations or [spec.origin or name]))).resolve()
    return None if found == _ROOT / name else found


def _from_beside(name: str, package: str) -> ModuleSpec:
    folder = _ROOT / package
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])
    assert spec is not None
    return spec


class _SameModules(MetaPathFinder, Loader):
    """`odernn.analysis.memory` is `analysis.memory`: two names of one module. An import by the longer name ends here."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        prefix, _, other = name.partition(".")
        if prefix != __package__ or other.partition(".")[0] not in _NAMES:
            return None
        if _other(other.partition(".")[0]) is not None:
            # The short name is another's. The import system finds submodules by the path of their package.
            return _from_beside(name, other) if other in _NAMES else None
        if importlib.util.find_spec(other) is None:
            return None
        return importlib.util.spec_from_loader(name, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(spec.name.partition(".")[2])
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It has run already. What the import system wrote over is put back."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


def _take_the_name_targets() -> None:
    """`import targets` means ours from here on, though another one would be found first."""
    other = _other("targets")
    if other is None:
        return
    if "targets" in sys.modules:
        require_ours("targets")
    spec = _from_beside("targets", "targets")
    module = importlib.util.module_from_spec(spec)

    def missing(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ImportError(f"no {name!r} in the package 'targets' of odernn, which hides {other}: rename that", name="targets")

    sys.modules["targets"] = module
    assert spec.loader is not None
    spec.loader.exec_module(module)
    module.__getattr__ = missing  # type: ignore[method-assign]
    if other.is_file() or (other / "__init__.py").exists():
        warnings.warn(f"`import targets` is the package of odernn from here on and hides {other}: rename that", stacklevel=2)


sys.meta_path.insert(0, _SameModules())
# Here, because odernn imports it next.
_take_the_name_targets()
