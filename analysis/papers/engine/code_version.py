"""Hashes the code that a result depends on: that of a module and of the modules it imports, directly or not."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

PROJECT = ("targets", "odernn", "analysis")
# It runs the jobs, and computes nothing.
_ENGINE = __package__
# Imports that only a running program knows: the module then depends on every module beside it.
_DYNAMIC = "import_module"
# Module -> sources with their stamps, and its version: every job asks for it, and imports stay while the sources do.
_versions: dict[str, tuple[list[tuple[str, Path, tuple[int, int]]], str]] = {}


def code_version(module: str) -> str:
    """A hash of the source of a module and of all modules of this project that it imports, transitively.

    It is a hash of the set of their statements, each with those that the names in it stand for: comments, docstrings, layout,
    order, Python's version, and names and places of modules do not count, nor does the name of a function that is a job. So code
    may be moved, and modules renamed, split and merged, as long as the same statements are imported.

    Of a package, `from package import name` follows only the module that `name` comes from, and submodules do not drag in their
    package's __init__: otherwise everything would depend on everything. A module that calls `import_module` depends on all
    modules beside it. What this cannot see: data files, other packages, registries filled by modules that nothing here imports.

    Args:
        module: full name. Modules of its own top-level package count too.

    Raises:
        ValueError: there is no source of that module.
    """
    if module in _versions:
        sources, version = _versions[module]
        if all(path.exists() and _stamp(path) == stamp for _, path, stamp in sources):
            return version
    sources = [(name, path, _stamp(path)) for name, path in sorted(source_files(module).items())]
    modules = {name: _parse(path, *stamp) for name, path, stamp in sources}
    statements = {
        _digest(statement.text, *sorted(f"{use} {_meaning(modules, name, use)}" for use in statement.uses))
        for name, parsed in modules.items()
        for statement in parsed.statements
    }
    _versions[module] = sources, _digest(*sorted(statements))[:16]
    return _versions[module][1]


def source_files(module: str) -> dict[str, Path]:
    """The modules that `code_version` hashes, full name -> file."""
    packages = {*PROJECT, module.partition(".")[0]}
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or name.partition(".")[0] not in packages or _of_engine(name):
            continue
        path = _locate(name)
        if path is None:
            if name == module:
                raise ValueError(f"there is no source file of module {module}: jobs must come from an importable module")
            continue
        found[name] = path
        waiting += _dependencies(name, path, packages)
    return found


def _dependencies(name: str, path: Path, packages: set[str]) -> set[str]:
    parsed = _parse(path, *_stamp(path))
    package = _package(name, path)
    origins = ((_absolute(package, one), one.name) for one in parsed.imports)
    result = {_origin(origin, imported)[0] for origin, imported in origins if origin.partition(".")[0] in packages}
    if parsed.dynamic and package:
        result |= {f"{package}.{file.stem}" for file in path.parent.glob("*.py") if file.stem != "__init__"}
    return result


@dataclass(frozen=True)
class _Import:
    """`from module import name as alias`; name is '' where a module is imported as it is."""

    level: int
    module: str
    name: str
    alias: str


@dataclass(frozen=True)
class _Statement:
    """One of a module's own statements, its names as it binds and uses them; `kernels.load` is a use as `kernels` is."""

    text: str
    binds: frozenset[str]
    uses: frozenset[str]


@dataclass(frozen=True)
class _Module:
    path: Path
    statements: tuple[_Statement, ...]
    imports: tuple[_Import, ...]
    dynamic: bool


def _meaning(modules: Mapping[str, _Module], module: str, use: str, seen: frozenset[tuple[str, str]] = frozenset()) -> str:
    """The statements that bind a name in a module, wherever they stand; for other packages' names where they come from."""
    if (module, use) in seen:
        return ""
    name, _, attribute = use.partition(".")
    own = sorted(statement.text for statement in modules[module].statements if name in statement.binds)
    if own:
        return " ".join(own)
    for one in modules[module].imports:
        if one.alias != name:
            continue
        origin = _absolute(_package(module, modules[module].path), one)
        if origin.partition(".")[0] not in {known.partition(".")[0] for known in modules}:
            return f"{origin}.{one.name}"
        origin, inner = _origin(origin, one.name)
        if origin not in modules:
            # Of the engine, or not there.
            return ""
        # The name of a module means nothing by itself: its attributes do, which are uses of their own.
        inner = inner or attribute
        return _meaning(modules, origin, inner, seen | {(module, use)}) if inner else ""
    return ""


def _of_engine(module: str) -> bool:
    return f"{module}.".startswith(f"{_ENGINE}.")


def _package(module: str, path: Path) -> str:
    return module if path.name == "__init__.py" else module.rpartition(".")[0]


def _absolute(package: str, one: _Import) -> str:
    """The module that an import names. One dot is the package itself, every further dot one package up."""
    base = package.rsplit(".", one.level - 1)[0] if one.level else ""
    return ".".join(part for part in (base, one.module) if part)


def _origin(module: str, name: str) -> tuple[str, str]:
    """Where `from module import name` comes from: (that submodule, ''), or a module, the one it is re-exported from, and its
    name there."""
    if not name or _locate(f"{module}.{name}"):
        return (f"{module}.{name}" if name else module), ""
    path = _locate(module)
    if path is not None and path.name == "__init__.py":
        for one in _parse(path, *_stamp(path)).imports:
            origin = _absolute(module, one)
            if one.alias == name and (origin, one.name) != (module, name):  # a second name of another package names itself
                return _origin(origin, one.name)
    return module, name


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


@lru_cache(maxsize=1024)
def _parse(path: Path, _modified: int, _size: int) -> _Module:
    tree = ast.parse(path.read_bytes(), str(path))
    imports = tuple(one for node in ast.walk(tree) for one in _imports(node))
    dynamic = any(_DYNAMIC in (getattr(node, "id", None), getattr(node, "attr", None)) for node in ast.walk(tree))
    statements = tuple(
        _Statement(_digest(_text(node)), frozenset(_bound(node)), frozenset(_used(node)))
        for node in tree.body
        if not (isinstance(node, (ast.Import, ast.ImportFrom)) or _is_text(node) or "__all__" in _bound(node))
    )
    return _Module(path, statements, imports, dynamic)


def _imports(node: ast.AST) -> Iterator[_Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            # `import a.b` binds a, and makes a.b be there.
            yield _Import(0, alias.name, "", alias.asname or alias.name.partition(".")[0])
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            yield _Import(node.level, node.module or "", alias.name, alias.asname or alias.name)


def _bound(node: ast.stmt) -> set[str]:
    """Names that a statement of a module gives a value."""
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    if isinstance(node, definitions):
        return {node.name}
    # `if` and `try` have statements of their own.
    inner = list(ast.walk(node))
    stored = {one.id for one in inner if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
    return stored | {one.name for one in inner if isinstance(one, definitions)}


def _used(node: ast.stmt) -> Iterator[str]:
    for one in ast.walk(node):
        if isinstance(one, ast.Name):
            yield one.id
        elif isinstance(one, ast.Attribute) and isinstance(one.value, ast.Name):
            yield f"{one.value.id}.{one.attr}"


def _is_text(node: object) -> bool:
    """Whether a statement is a mere string, a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _text(node: object) -> str:
    """Syntax as text, the same in all versions of Python: newer ones have further fields, which are empty in older code."""
    if isinstance(node, list):
        return f"[{','.join(_text(one) for one in node if not _is_text(one))}]"
    if not isinstance(node, ast.AST):
        return f"{type(node).__name__} {node!a}"
    fields = dict(ast.iter_fields(node))
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        # Within a function: what the names stand for is told by their uses.
        fields = {"names": fields["names"]}
    elif isinstance(node, ast.FunctionDef) and any(_is_job(one) for one in node.decorator_list):
        del fields["name"]
    elif isinstance(node, ast.JoinedStr):
        # Python 3.12 has empty parts in some.
        fields["values"] = [part for part in node.values if not (isinstance(part, ast.Constant) and part.value == "")]
    # Strings marked u'' are strings.
    fields.pop("kind", None)
    written = (f"{name}={_text(value)}" for name, value in fields.items() if value is not None and value != [])
    return f"{type(node).__name__}({','.join(written)})"


def _is_job(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name) and decorator.func.id == "job"


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
