"""Limits on the metadata of a LoRA file. Longer entries are cut, and reported as notes before the first step.

Listing a file reads its whole header: the webui does so for every LoRA, caches the metadata and sends them to pages.
safetensors reads at most 100 MB, `files/safetensors_header.py` 8 MB, of which 32,768 tensors take up to 6.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MAX_METADATA_BYTES = 2 * 2**20  # as in the file
# an entry of every file that this program writes, and its prefix
MADE_BY = ("modelspec.implementation_version", "sd-webui-train-lora/")
TAGS, FOLDERS, BUCKETS = "ss_tag_frequency", ("ss_dataset_dirs", "ss_reg_dataset_dirs"), "ss_bucket_info"
# fractions of the whole; entries not listed here are strings or small tables, fewer than 16
_SHARES = {TAGS: 1 / 2, BUCKETS: 1 / 4, **dict.fromkeys(FOLDERS, 1 / 16)}
_SHARE = 1 / 128
_ODD_TAG = 1 / 64  # of the tags' share: a longer "tag" is left out, without ending the count
_HALF_PAIR = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Fitted:
    """`texts`: entry -> string. `told`: a note on each entry that is cut or cleaned."""

    texts: dict[str, str]
    told: tuple[str, ...]


def fitted(entries: Mapping[str, Any]) -> Fitted:
    """Entries as strings, each within its share: tables as JSON (as in sd-scripts), the rest with `str`."""
    texts, told = {}, []
    for key, value in entries.items():
        if isinstance(value, (str, dict)) and _HALF_PAIR.search(json.dumps(value, ensure_ascii=False)):
            value = _clean(value)  # noqa: PLW2901 - the entry, without what no file can hold
            told.append(f"The LoRA's file has � where {key} contains half a character.")
        text, cut = _cut(key, value, int(MAX_METADATA_BYTES * _SHARES.get(key, _SHARE)))
        texts[key] = text
        told += [cut] if cut else []
    return Fitted(texts, tuple(told))


def bytes_of(text: str) -> int:
    """Bytes of a string in a header, with its quotes."""
    return len(json.dumps(text, ensure_ascii=False).encode())


def _cut(key: str, value: Any, budget: int) -> tuple[str, str | None]:
    """The string of an entry, and a note if it was cut."""
    whole = json.dumps(value) if isinstance(value, dict) else str(value)
    if bytes_of(whole) <= budget:
        return whole, None
    if not isinstance(value, dict):
        kept = _beginning(whole, budget)
        return kept, f"The LoRA's file contains only the first {len(kept) - 1:,} of {len(whole):,} characters of {key}."
    if key == TAGS:
        tags, kept_tags, all_tags = _fewer_tags(value, budget)
        return json.dumps(tags), (
            f"The captions have {all_tags:,} different tags; the LoRA's file lists the {kept_tags:,} most frequent ({key})."
        )
    if key == BUCKETS:
        small, buckets = {**value, "buckets": {}}, value["buckets"]
        most = _fewer(buckets, budget - _cost(key, small), lambda bucket: bucket["count"])
        return json.dumps({**small, "buckets": most}), (
            f"The LoRA's file lists {len(most):,} of {len(buckets):,} sizes ({key}), those with the most images."
        )
    table = _fewer(value, budget, (lambda folder: folder["img_count"]) if key in FOLDERS else (lambda _: 0))
    which = ", those of folders with the most images" if key in FOLDERS else ""
    return json.dumps(table), f"The LoRA's file lists {len(table):,} of {len(value):,} entries of {key}{which}."


def _beginning(text: str, budget: int) -> str:
    """The beginning of `text` that fits, with an ellipsis."""
    left, kept = budget - bytes_of("…"), 0
    for character in text[:budget]:
        left -= bytes_of(character) - 2
        if left < 0:
            break
        kept += 1
    return text[:kept] + "…"


def _fewer_tags(table: Mapping[str, Mapping[str, int]], budget: int) -> tuple[dict[str, dict[str, int]], int, int]:
    """The most frequent tags of all folders (ties: the first wins), their number, and the number of all tags."""
    found = [(count, folder, tag) for folder, tags in table.items() for tag, count in tags.items()]
    left, kept, seen = budget - 4, set[tuple[str, str]](), set[str]()
    for count, folder, tag in sorted(found, key=lambda entry: -entry[0]):
        cost = _cost(tag, count)
        if cost > budget * _ODD_TAG:
            continue
        cost += 0 if folder in seen else _cost(folder, {})
        if cost > left:
            break
        left -= cost
        seen.add(folder)
        kept.add((folder, tag))
    fewer = {folder: {tag: n for tag, n in tags.items() if (folder, tag) in kept} for folder, tags in table.items()
             if folder in seen}  # fmt: skip
    return fewer, len({tag for _, tag in kept}), len({tag for _, _, tag in found})


def _fewer(table: Mapping[str, Any], budget: int, weight: Callable[[Any], int]) -> dict[str, Any]:
    """As many entries as fit, those with the largest weight, in their original order."""
    left, kept = budget - 4, set[str]()
    for key in sorted(table, key=lambda key: -weight(table[key])):
        cost = _cost(key, table[key])
        if cost <= left:
            left -= cost
            kept.add(key)
    return {key: value for key, value in table.items() if key in kept}


def _cost(key: str, value: Any) -> int:
    """Bytes of a table's entry in the header, where quotes and backslashes of the table's JSON are escaped again."""
    return bytes_of(f"{json.dumps(key)}: {json.dumps(value)}, ") - 2


def _clean(value: Any) -> Any:
    """`value` without lone surrogates, which file names may hold and UTF-8 cannot encode."""
    if isinstance(value, str):
        return _HALF_PAIR.sub("�", value)
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, list) else value
