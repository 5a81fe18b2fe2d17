"""Write docs/options.md from the option list: `python -m tools.options_table`."""

from __future__ import annotations

from pathlib import Path

from lib_lora.config.groups import all_options, group_titles
from lib_lora.config.options import Option

PAGE = Path(__file__).parent.parent / "docs" / "options.md"
HEAD = """# Options

Generated from the declarations in `lib_lora/config/` by `python -m tools.options_table`. On the command line every option is
`--name`, with our name or kohya's, with dashes or underscores.
"""
TABLE_HEAD = """
## {title}

| name | label | kohya | default | allowed | description |
|---|---|---|---|---|---|
"""


def page() -> str:
    """The whole document."""
    text = HEAD
    for group, title in group_titles().items():
        text += TABLE_HEAD.format(title=title) + "".join(_row(opt) for opt in all_options() if opt.group == group)
    return text


def _row(opt: Option) -> str:
    declared = opt.declaration
    default = "" if opt.default in ("", ()) else opt.default_words
    cells = [
        f"`{opt.name}`",
        declared.label,
        f"`{declared.kohya}`" if declared.kohya else "",
        default,
        _legal(opt),
        declared.help,
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _legal(opt: Option) -> str:
    if opt.choices:
        return ", ".join(opt.choices)
    if opt.type in (int, float):
        return "{:g} to {:g}".format(*opt.declaration.between)
    texts = {"folder": "folders", "file": "files"}.get(str(opt.declaration.is_path), "name=value …")
    return {bool: "true, false", tuple: texts, str: "text"}[opt.type]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
