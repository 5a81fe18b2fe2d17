"""Whether a dotted name is an optimizer or a schedule of an installed package, found without importing it.

Importing a module runs its code, so the package's source is parsed first: it must define the class, which must derive from
torch's own base class, directly or through other classes and modules.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Literal

Kind = Literal["optimizer", "schedule"]
LONGEST_NAME, MOST_PARTS = 200, 12
MAX_FILES, MAX_BYTES = 200, 2 * 2**20
ROOTS: dict[Kind, frozenset[str]] = {
    "optimizer": frozenset({"torch.optim.Optimizer", "torch.optim.optimizer.Optimizer"}),
    "schedule": frozenset({"torch.optim.lr_scheduler.LRScheduler", "torch.optim.lr_scheduler._LRScheduler"}),
}
_OF_TORCH: dict[Kind, str] = {"optimizer": "torch.optim.Optimizer", "schedule": "torch.optim.lr_scheduler.LRScheduler"}


def class_problem(name: str, kind: Kind) -> str | None:
    """Why `name` (package.module.Class) is refused, as the end of a sentence; None if it is a class of `kind`."""
    parts = name.split(".")
    if len(name) > LONGEST_NAME or len(parts) > MOST_PARTS or not all(part.isidentifier() for part in parts):
        return "cannot be found: it is not a name such as package.Class"
    if len(parts) < 2 or "__main__" in parts:
        return f"is not a torch {kind}: programs are not imported"
    package, module, attribute = parts[0], ".".join(parts[:-1]), parts[-1]
    if package in sys.stdlib_module_names:
        return f"is not a torch {kind}: {package} is part of Python, and only installed packages are searched"
    spec = PathFinder.find_spec(package)
    if spec is None:
        return f"cannot be found: it needs the package {package}, which is not installed"
    if not is_installed(package):
        return (
            f"is not a torch {kind} of an installed package: pip does not list {package}, and files outside of installed "
            "packages are not imported; install it with pip"
        )
    source = _Sources(kind)
    if source.is_one(module, attribute):
        return None
    if not source.has(module, attribute):
        return f"cannot be found: the source of {module} has no {attribute}"
    return f"is not a torch {kind} (a subclass of {_OF_TORCH[kind]})"


@lru_cache(maxsize=64)
def is_installed(package: str) -> bool:
    """Whether an installer's record lists the file that Python would import as `package`."""
    spec = PathFinder.find_spec(package)
    if spec is None or spec.origin is None:
        return False
    origin = Path(spec.origin)
    folder = origin.parent.parent if spec.submodule_search_locations else origin.parent
    if folder.resolve() == Path.cwd():
        return False
    written = origin.relative_to(folder).as_posix()
    return any(_lists(found, package, written) for found in metadata.distributions(path=[str(folder)]))


def _lists(found: metadata.Distribution, package: str, file: str) -> bool:
    record = found.read_text("RECORD")
    if record is not None:
        return f"\n{file}," in f"\n{record}"
    return package in (found.read_text("top_level.txt") or "").split()  # not installed by pip


@dataclass
class _Module:
    """Names that a module's source binds: classes, imported names (module, name), modules, aliases, star imports."""

    classes: dict[str, list[ast.ClassDef]] = field(default_factory=dict)
    names: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)


class _Sources:
    """Parsed sources, and the classes visited so far, since bases may form a cycle."""

    def __init__(self, kind: Kind) -> None:
        self._roots = ROOTS[kind]
        self._read: dict[str, _Module | None] = {}
        self._asked: set[tuple[str, str]] = set()

    def has(self, module: str, attribute: str) -> bool:
        """Whether the source of `module` may bind `attribute`."""
        found = self._module(module)
        return found is not None and (
            bool(found.stars) or any(attribute in part for part in (found.classes, found.names, found.aliases))
        )

    def is_one(self, module: str, attribute: str) -> bool:
        """Whether `attribute` of `module` is a class that derives from torch's."""
        if f"{module}.{attribute}" in self._roots:
            return True
        if (module, attribute) in self._asked:
            return False
        self._asked.add((module, attribute))
        found = self._module(module)
        if found is None:
            return False
        for defined in found.classes.get(attribute, []):
            if any(self._dotted(module, found, base) for base in map(_dotted_name, defined.bases) if base):
                return True
        if any(self.is_one(*other) for other in found.names.get(attribute, [])):
            return True
        if attribute in found.aliases and self._dotted(module, found, found.aliases[attribute]):
            return True
        return any(self.is_one(other, attribute) for other in found.stars)

    def _dotted(self, module: str, found: _Module, name: str) -> bool:
        """Whether `name`, as written in `module`, is such a class."""
        first, _, rest = name.partition(".")
        if not rest:
            return self.is_one(module, first)
        path, _, attribute = rest.rpartition(".")
        origins = [f"{other}.{inner}" for other, inner in found.names.get(first, [])]
        origins += [found.modules[first]] if first in found.modules else []
        return any(self.is_one(f"{origin}.{path}".rstrip("."), attribute) for origin in origins)

    def _module(self, name: str) -> _Module | None:
        if name not in self._read:
            self._read[name] = _bindings(name) if len(self._read) < MAX_FILES else None
        return self._read[name]


def _bindings(name: str) -> _Module | None:
    """The names bound by a module of an installed package; None if its source cannot be read."""
    spec = _found(name)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    try:
        if Path(spec.origin).stat().st_size > MAX_BYTES:
            return None
        tree = ast.parse(Path(spec.origin).read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    package = name if spec.submodule_search_locations else name.rpartition(".")[0]
    found = _Module()
    for node in _statements(tree.body):
        _bind(node, package, found)
    return found


def _found(name: str) -> ModuleSpec | None:
    """A module's spec, found from its package's folder downwards, without importing parent packages."""
    parts = name.split(".")
    if not is_installed(parts[0]):
        return None
    spec = PathFinder.find_spec(parts[0])
    for place in range(1, len(parts)):
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(".".join(parts[: place + 1]), list(spec.submodule_search_locations))
    return spec


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of `body`, and those inside `if`, `try` and `with`."""
    for node in body:
        yield node
        for part in ("body", "orelse", "finalbody"):
            if not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                yield from _statements(getattr(node, part, []))
        for handler in getattr(node, "handlers", []):
            yield from _statements(handler.body)


def _bind(node: ast.stmt, package: str, found: _Module) -> None:
    if isinstance(node, ast.ClassDef):
        found.classes.setdefault(node.name, []).append(node)
    elif isinstance(node, ast.Import):
        for item in node.names:
            found.modules[item.asname or item.name.partition(".")[0]] = item.name if item.asname else item.name.partition(".")[0]
    elif isinstance(node, ast.ImportFrom):
        above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        module = ".".join([*above, *([node.module] if node.module else [])])
        for item in node.names:
            if item.name == "*":
                found.stars.append(module)
            else:
                found.names.setdefault(item.asname or item.name, []).append((module, item.name))
    elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        value = _dotted_name(node.value)
        if value:
            found.aliases[node.targets[0].id] = value


def _dotted_name(node: ast.expr) -> str:
    """`a.b.C`; "" for anything else. Subscripts (`Base[T]`) are dropped."""
    if isinstance(node, ast.Subscript):
        return _dotted_name(node.value)
    if isinstance(node, ast.Attribute):
        inner = _dotted_name(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return node.id if isinstance(node, ast.Name) else ""
