"""What a result depends on in the code: a hash of the modules that a module imports, directly or not."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path

PROJECT = ("targets", "odernn", "analysis")
# Imports that only a running program knows: the module then depends on every module beside it.
_DYNAMIC = "import_module"


def code_version(module: str) -> str:
    """A hash of the source of a module and of all modules of this project that it imports, transitively.

    Comments, docstrings and layout do not count. Of a package, `from package import name` follows only the module that `name`
    comes from, and submodules do not drag in their package's __init__: otherwise everything would depend on everything. A
    module that calls `import_module` depends on all modules beside it. What this cannot see: data files, other packages,
    registries filled by modules that nothing here imports.

    Args:
        module: full name. Modules of its own top-level package count too.

    Raises:
        ValueError: there is no source of that module.
    """
    sources = source_files(module)
    text = "\n".join(f"{name} {_parse(path, *_stamp(path))[0]}" for name, path in sorted(sources.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def source_files(module: str) -> dict[str, Path]:
    """The modules that `code_version` hashes, full name -> file."""
    packages = {*PROJECT, module.partition(".")[0]}
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or name.partition(".")[0] not in packages:
            continue
        path = _locate(name)
        if path is None:
            if name == module:
                raise ValueError(f"there is no source file of module {module}: jobs must come from an importable module")
            continue
        found[name] = path
        waiting += _dependencies(name, path)
    return found


def _dependencies(name: str, path: Path) -> set[str]:
    _, imports, dynamic = _parse(path, *_stamp(path))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    result: set[str] = set()
    for level, source, names in imports:
        # One dot is the package itself, every further dot one package up.
        base = package.rsplit(".", level - 1)[0] if level else ""
        origin = ".".join(part for part in (base, source) if part)
        result |= {_origin(origin, imported) for imported in names} if names else {origin}
    if dynamic:
        beside = path.parent.glob("*.py")
        result |= {f"{package}.{file.stem}" for file in beside if file.stem != "__init__"} if package else set()
    return result


def _origin(module: str, name: str) -> str:
    """The module that defines what `from module import name` gives: a submodule, the module, or one it re-exports from."""
    if _locate(f"{module}.{name}"):
        return f"{module}.{name}"
    path = _locate(module)
    if path is not None and path.name == "__init__.py":
        for level, source, names in _parse(path, *_stamp(path))[1]:
            if name in names:
                base = module.rsplit(".", level - 1)[0] if level else ""
                return _origin(".".join(part for part in (base, source) if part), name)
    return module


def _locate(module: str) -> Path | None:
    """The source file, without importing anything but what is imported already."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ValueError, ModuleNotFoundError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for root in spec.submodule_search_locations or ():
        stem = Path(root).joinpath(*rest)
        for path in (stem.with_name(stem.name + ".py"), stem / "__init__.py"):
            if path.is_file():
                return path
    return None


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


_Import = tuple[int, str, tuple[str, ...]]


@lru_cache(maxsize=1024)
def _parse(path: Path, _modified: int, _size: int) -> tuple[str, tuple[_Import, ...], bool]:
    """Hash of the code, its imports as (level, module, names), and whether it imports dynamically."""
    tree = ast.parse(path.read_bytes(), str(path))
    imports: list[_Import] = []
    dynamic = False
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [(0, alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imports.append((node.level, node.module or "", tuple(alias.name for alias in node.names)))
        elif isinstance(node, (ast.Name, ast.Attribute)):
            dynamic = dynamic or _DYNAMIC in (getattr(node, "id", None), getattr(node, "attr", None))
        elif isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and ast.get_docstring(node):
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), tuple(imports), dynamic
