"""The texts for people in the program's source: literals and f-strings with words, as templates of `lib_lora.languages`.

What only the console is told is none of them, and neither are types and the purposes of random draws.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

_HOLE = re.compile(r"(?<!\{)\{\d+\}(?!\})")
_NAMED = re.compile(r"\{[a-z_]*(?:![rs])?(?::[a-z.\d]*)?\}")  # a hole of a text that `format` fills


def prose(path: Path) -> list[str]:
    """The templates of a Python file with at least two words or a full stop, without docstrings, in their order."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    apart = (*_docstrings(tree), *_types(tree), *_console(tree), *_purposes(tree))
    found = _texts(tree, {id(node) for node in apart})
    return [text for text in dict.fromkeys(found) if _is_prose(text)]


def _is_prose(text: str) -> bool:
    words = re.sub(r"\{\d+\}", " ", text)
    is_sentence = bool(re.fullmatch(r"[A-Z][a-z-]+\.", text))
    return is_sentence or (bool(re.search(r"[A-Za-z]{2,}", words)) and " " in text.strip() and not text.startswith("<"))


def _docstrings(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                yield first.value


def _types(tree: ast.AST) -> Iterator[ast.AST]:
    """Types in quotes: what `cast` is given, and the parts of a `Callable`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node.func) == "cast":
            yield node.args[0]
        if isinstance(node, ast.Subscript) and _name(node.value) == "Callable":
            yield node.slice


def _console(tree: ast.AST) -> Iterator[ast.AST]:
    """What is logged or printed, there also by `_say`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            of = node.func.value if isinstance(node.func, ast.Attribute) else None
            if _name(of) == "log" or _name(node.func) in ("print", "_say"):
                yield from node.args


def _purposes(tree: ast.AST) -> Iterator[ast.AST]:
    """What draws of `lib_lora.randomness` are for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node.func) in ("draw", "uniform", "permutation"):
            yield from node.args


def _name(node: ast.AST | None) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _texts(node: ast.AST, apart: set[int]) -> Iterator[str]:
    """The templates below `node`; those of the holes of a template follow it."""
    if id(node) in apart:
        return
    made = _template(node)
    if made is not None:
        yield made
    for child in _within(node) if made is not None else ast.iter_child_nodes(node):
        yield from _texts(child, apart)


def _within(node: ast.AST) -> Iterator[ast.AST]:
    """The expressions in the holes of a template."""
    if isinstance(node, ast.JoinedStr):
        yield from (part.value for part in node.values if isinstance(part, ast.FormattedValue))
    if isinstance(node, ast.BinOp):
        for side in (node.left, node.right):
            yield from [side] if _template(side) is None else _within(side)


def _template(node: ast.AST) -> str | None:
    """The template of a literal, an f-string or a sum of such; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _numbered(_NAMED.sub("{0}", _doubled(node.value, keep=_NAMED)))
    if isinstance(node, ast.JoinedStr):
        return _numbered("".join(_doubled(str(part.value)) if isinstance(part, ast.Constant) else "{0}" for part in node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        sides = [_template(node.left), _template(node.right)]
        return None if sides == [None, None] else _numbered("".join("{0}" if side is None else side for side in sides))
    return None


def _doubled(text: str, keep: re.Pattern[str] | None = None) -> str:
    """`text` with its braces doubled, except those of holes."""
    parts = re.split(f"({keep.pattern})", text) if keep else [text]
    return "".join(part if keep and keep.fullmatch(part) else part.replace("{", "{{").replace("}", "}}") for part in parts)


def _numbered(text: str) -> str:
    """`text` with its holes numbered from 0."""
    numbers = iter(range(len(text)))
    return _HOLE.sub(lambda _: f"{{{next(numbers)}}}", text)
