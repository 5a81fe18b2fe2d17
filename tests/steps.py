"""Steps instead of seconds: of a regular expression, by a backtracking matcher like Python's; of Python code, by its bytecode."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

try:
    from re import _parser as parser  # type: ignore[attr-defined]
except ImportError:  # Python 3.10
    import sre_parse as parser

ENOUGH = 100_000  # steps, for any text here; a pattern that takes more is not linear
SCANNING = {"search", "split", "sub", "subn", "findall", "finditer"}
METHODS = SCANNING | {"match", "fullmatch"}
MARKS = {"category_space": str.isspace, "category_digit": str.isdecimal, "category_word": lambda c: c.isalnum() or c == "_"}


class Matcher:
    """One pattern. `steps` counts the places where a part of it was tried."""

    def __init__(self, pattern: str | bytes, flags: int = 0) -> None:
        self.tree = list(parser.parse(pattern, flags))
        self.steps = 0

    def run(self, text: str, *, scans: bool, first_only: bool = False) -> int:
        """The steps to go over `text`: from its beginning alone, or from each place that no match before has taken."""
        self.steps, self.text, position = 0, text, 0
        while position <= len(text) and self.steps < ENOUGH:
            end = next(self._all(self.tree, position), None)
            if not scans or (first_only and end is not None):
                break
            position = end if end is not None and end > position else position + 1
        return self.steps

    def _all(self, nodes: list[Any], at: int) -> Iterator[int]:
        """Every end of a match of `nodes` from `at`, in the order in which they are tried."""
        if not nodes:
            yield at
            return
        if self.steps > ENOUGH:
            return
        for middle in self._one(nodes[0], at):
            yield from self._all(nodes[1:], middle)

    def _one(self, node: Any, at: int) -> Iterator[int]:
        self.steps += 1
        kind, value = str(node[0]).lower(), node[1]
        if kind in ("literal", "not_literal", "in", "any"):
            yield from [at + 1] if at < len(self.text) and self._takes(kind, value, self.text[at]) else []
        elif kind in ("max_repeat", "min_repeat"):
            yield from self._repeated(list(value[2]), at, value[0], int(value[1]), 0)
        elif kind in ("assert", "assert_not", "at"):
            yield from [at] if self._holds(kind, value, at) else []
        elif kind in ("subpattern", "branch"):
            for branch in value[1] if kind == "branch" else [value[-1]]:
                yield from self._all(list(branch), at)
        else:
            raise NotImplementedError(kind)

    def _holds(self, kind: str, value: Any, at: int) -> bool:
        if kind == "at":
            return "boundary" not in str(value).lower() or self._word(at - 1) != self._word(at)
        places = [at] if value[0] > 0 else [at - 1] if at else []
        found = any(next(self._all(list(value[1]), place), None) is not None for place in places)
        return found == (kind == "assert")

    def _repeated(self, nodes: list[Any], at: int, least: int, most: int, done: int) -> Iterator[int]:
        if done < most:
            for middle in self._all(nodes, at):
                if middle > at:
                    yield from self._repeated(nodes, middle, least, most, done + 1)
        self.steps += 1
        if done >= least:
            yield at

    def _word(self, at: int) -> bool:
        return 0 <= at < len(self.text) and MARKS["category_word"](self.text[at])

    def _takes(self, kind: str, value: Any, character: str) -> bool:
        if kind == "any":
            return True
        if kind != "in":
            return (ord(character) == value) == (kind == "literal")
        negated = str(value[0][0]).lower() == "negate"
        return negated != any(self._is_in(item, character) for item in value[negated:])

    def _is_in(self, item: Any, character: str) -> bool:
        kind = str(item[0]).lower()
        if kind == "range":
            return bool(item[1][0] <= ord(character) <= item[1][1])
        if kind == "category":
            name = str(item[1]).lower()
            return MARKS[name.replace("_not_", "_")](character) != ("_not_" in name)
        return bool(ord(character) == item[1])


def letters(tree: Any) -> list[str]:
    """A letter for each thing that a pattern looks for, and one for none."""
    found: list[str] = []

    def visit(node: Any) -> None:
        if isinstance(node, tuple) and len(node) == 2 and str(node[0]).lower() in ("literal", "not_literal"):
            found.append(chr(node[1]))
        elif isinstance(node, tuple) and len(node) == 2 and str(node[0]).lower() == "range":
            found.append(chr(node[1][0]))
        elif isinstance(node, tuple) and len(node) == 2 and str(node[0]).lower() == "category":
            found.append({"space": " ", "digit": "1"}.get(str(node[1]).lower().rpartition("_")[2], "a"))
        elif isinstance(node, (tuple, list)) or hasattr(node, "data"):
            for inner in node:
                visit(inner)

    visit(tree)
    return list(dict.fromkeys([*found[:9], "!", "a"]))[:7]


def attacks(matcher: Matcher) -> Iterator[Callable[[int], str]]:
    """Texts of any length: one or two letters again and again, behind and in front of others."""
    known = letters(matcher.tree)
    for pump in [*known, *(a + b for a in known for b in known if a != b)]:
        for start in ["", *known]:
            for end in ("", "!"):
                yield lambda n, pump=pump, start=start, end=end: start + pump * n + end  # type: ignore[misc]


def patterns(root: Path) -> Iterator[tuple[str, str | bytes, int, set[str]]]:
    """Every pattern of the sources below `root`: where it is, its text, flags, and the methods that it is used by.

    What is put into a pattern where it runs counts as two letters.
    """
    for path in sorted(root.rglob("*.py")):
        tree = ast.parse(path.read_text())
        texts, named = _module_level(tree)
        uses: dict[str, set[str]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in METHODS:
                for part in ast.walk(node.value):
                    if isinstance(part, ast.Name):
                        uses.setdefault(part.id, set()).add(node.attr)
            if isinstance(node, ast.Call) and _called(node) in METHODS:
                yield f"{path.relative_to(root)}:{node.lineno}", _text(node.args[0], texts), 0, {_called(node)}
        for name, call in named.items():
            flags = re.DOTALL if len(call.args) > 1 and "DOTALL" in ast.dump(call.args[1]) else 0
            yield f"{path.relative_to(root)}:{name}", _text(call.args[0], texts), flags, uses.get(name) or {"search"}


def _module_level(tree: ast.Module) -> tuple[dict[str, Any], dict[str, ast.Call]]:
    """Texts and compiled patterns that a module has names for."""
    texts: dict[str, Any] = {}
    named: dict[str, ast.Call] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name, value = node.targets[0].id, node.value
            if isinstance(value, ast.Call) and _called(value) == "compile":
                named[name] = value
            elif isinstance(value, (ast.Constant, ast.JoinedStr)):
                texts[name] = _text(value, texts)
    return texts, named


def _called(node: ast.Call) -> str:
    """`f` of `re.f(…)`; "" for other calls."""
    function = node.func
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "re":
        return function.attr
    return ""


def _text(node: ast.expr, texts: dict[str, Any]) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
        return node.value
    if isinstance(node, ast.BinOp):
        return f"{_text(node.left, texts)}{_text(node.right, texts)}"
    if isinstance(node, ast.JoinedStr):
        parts = (
            texts.get(part.value.id, "xy") if isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.Name)
            else part.value if isinstance(part, ast.Constant) else "xy"
            for part in node.values
        )  # fmt: skip
        return "".join(str(part) for part in parts)
    return "xy"


def steps_of(function: Callable[[], object]) -> int:
    """The instructions of Python that `function` takes."""
    count = 0

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return count
