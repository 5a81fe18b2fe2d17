"""Settings that name folders or files, on a webui that hides those (`--hide-ui-dir-config`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lib_lora.config.groups import options_by_name


def hidden_path_problems(flat: Mapping[str, Any]) -> list[str]:
    """A problem for every option that names a folder or file, for a webui that hides those."""
    return [
        f"{opt.title}: the webui runs with --hide-ui-dir-config, so its folders and files cannot be chosen; leave it empty, and "
        "drop images."
        for opt in map(options_by_name().__getitem__, flat)
        if opt.names_path(flat[opt.name])
    ]
