"""The keys and shapes of a LoRA file -> internal layer names, which are kohya's names for its family.

    translate(shapes, metadata, family) -> Translation

No tensors are needed: takes names, shapes and metadata; returns names and numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lib_lora.families.family import Family
from lib_lora.model.layer_names.alphas import said_alphas, said_scales
from lib_lora.model.layer_names.families import Found, Layer, Shape, by_metadata, families_of, narrowed, text_width
from lib_lora.model.layer_names.keys import BUNDLE, TEXT, TEXT_1, TEXT_2, TEXT_H, UNET, Key, Named, key_of
from lib_lora.model.layer_names.others import no_lora, other_model
from lib_lora.model.layer_names.text import text_paths
from lib_lora.model.layer_names.unet import place_of, unet_path

_STYLES = {
    "kohya": "kohya's format", "bare": "kohya's format without its prefix", "lycoris": "the format of LyCORIS' wrapper",
    "peft": "PEFT's format (lora_A, lora_B)", "diffusers": "diffusers' older format (lora.down, lora.up)",
    "comfy": "ComfyUI's format",
    "dotted": "OneTrainer's format with dots",
}  # fmt: skip
_SPLIT = {"lora_up.weight", "diff", "diff_b"}  # tensors with one row per output
_SHARED = {"lora_down.weight", "alpha"}


@dataclass(frozen=True)
class Translation:
    """Internal names of a file's tensors.

    `families`: those that the file can be of. `layout`: its form of names, in words. `unknown`: keys without a place.
    `alphas`: layer -> alpha that metadata state instead of a tensor. `other`: the model that cannot be trained here, in words.
    `twice`: layers that the file has under two names. `kept`: layer -> its name in the file, if that has kohya's form.
    `scales`: layer -> factor from the metadata that no alpha can express.
    """

    families: Found
    layout: str
    tensors: Mapping[str, tuple[Named, ...]]
    alphas: Mapping[str, float] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    other: str = ""
    twice: tuple[str, ...] = ()
    kept: Mapping[str, str] = field(default_factory=dict)
    scales: Mapping[str, float] = field(default_factory=dict)

    @property
    def family(self) -> Family | None:
        """The family if only one is left, else None."""
        return self.families[0] if len(self.families) == 1 else None

    @property
    def family_words(self) -> str:
        """The families that are left, in words."""
        return " or ".join(family.name for family in self.families)


def translate(shapes: Mapping[str, Shape], metadata: Mapping[str, str], family: Family | None = None) -> Translation:
    """Translate the keys of a file.

    Args:
        shapes: of the file's tensors, by key.
        metadata: of the file.
        family: the model's, which decides the names if the file can be of several.
    """
    keys = {key: key_of(key) for key in shapes if key.partition(".")[0] != BUNDLE}
    layers = _layers(keys, shapes)
    can_be = narrowed(families_of(layers.values()), [by_metadata(metadata)])
    chosen = next((one for one in can_be if family is not None and one.id == family.id), None) or _likely(can_be, keys)
    tensors: dict[str, tuple[Named, ...]] = {
        key: (Named(BUNDLE, key.partition(".")[2]),) for key in shapes if key.partition(".")[0] == BUNDLE
    }
    unknown = []
    for key, taken in keys.items():
        named = _named(taken, layers, chosen) if taken else ()
        if named:
            tensors[key] = named
        else:
            unknown.append(key)
    other = (other_model(unknown) or no_lora(shapes)) if unknown else ""
    known = {key: (taken, shapes[key]) for key, taken in keys.items() if taken}
    alphas, scales = said_alphas(metadata, known, tensors), said_scales(metadata, known, tensors)
    twice, kept = _twice(tensors), _kept_names(keys, tensors)
    return Translation(can_be, _layout(keys, tensors), tensors, alphas, tuple(unknown), other, twice, kept, scales)


def _layers(keys: Mapping[str, Key | None], shapes: Mapping[str, Shape]) -> dict[tuple[str, str], Layer]:
    """The layers of a file by part and path; a text encoder's layer holds its internal path."""
    found: dict[tuple[str, str], dict[str, Shape]] = {}
    for key, taken in keys.items():
        if taken is not None:
            found.setdefault((taken.part, taken.path), {})[taken.end] = shapes[key]
    inner = {(part, path): (text_paths(path) if part != UNET else ()) or (path,) for part, path in found}
    return {(part, path): Layer(part, inner[part, path][0], ends) for (part, path), ends in found.items()}


def _likely(can_be: Found, keys: Mapping[str, Key | None]) -> Family:
    """The family whose names are used if several are possible and no model decides."""
    if len(can_be) == 1:
        return can_be[0]
    numbered = any(key is not None and key.part == TEXT_1 for key in keys.values())
    ldm = any(key is not None and key.flat and key.path.startswith(("input_", "middle_", "output_")) for key in keys.values())
    named_so = [family for family in can_be if family.unet.names == "ldm"] if numbered or ldm else []
    return (named_so or list(can_be))[0]


def _named(key: Key, layers: Mapping[tuple[str, str], Layer], family: Family) -> tuple[Named, ...]:
    """Internal names of one tensor; empty if no model of the family has the layer."""
    if key.part == UNET:
        place = place_of(key.path)
        path = unet_path(place, family.unet) if place else None
        return (Named(f"lora_unet_{path}", key.end, rows=key.rows),) if path else ()
    prefix = _prefix(key, layers[key.part, key.path], family)
    paths = text_paths(key.path)
    if not prefix or not paths:
        return ()
    if len(paths) == 1:
        return (Named(f"{prefix}_{paths[0]}", key.end, rows=key.rows),)
    held = layers[key.part, key.path].shapes
    rows = [shape[0] if shape else 1 for end, shape in held.items() if end in _SPLIT]
    if not set(held) <= _SPLIT | _SHARED or any(count % len(paths) for count in rows):
        return ()  # the rows of other types cannot be split in three
    return tuple(Named(f"{prefix}_{path}", key.end, third if key.end in _SPLIT else None) for third, path in enumerate(paths))


def _prefix(key: Key, layer: Layer, family: Family) -> str:
    """The family's prefix for the text encoder that a key names; "" if it has none."""
    if len(family.text_encoders) == 1:
        return "" if key.part == TEXT_2 else family.text_prefixes[0]
    if key.part == TEXT_H:
        return ""
    second = key.part == TEXT_2 or (key.part == TEXT and text_width(layer) == family.text_encoders[1].width)
    return family.text_prefixes[second]


def _layout(keys: Mapping[str, Key | None], tensors: Mapping[str, Sequence[Named]]) -> str:
    """The file's form of names, in words; kohya's names only if nothing had to be translated."""
    known = [key for name, key in keys.items() if key is not None and name in tensors]
    if not known:
        return "an unknown format"
    if all(named[0].key == name for name, named in tensors.items()):
        return "kohya's names"
    others = [name for name in tensors if (key := keys.get(name)) is None or key.part == UNET]
    if all(key.flat for key in known) and all(tensors[name][0].key == name for name in others):
        return "kohya's names except for its text encoders"
    styles = list(dict.fromkeys(_STYLES[key.style] for key in known))
    paths = [key.path for key in known if key.part == UNET]
    ldm = any(path.startswith(("input_", "middle_", "output_", "time_embed_", "label_emb_", "out_")) for path in paths)
    whose = "ldm's block names" if ldm else "diffusers' block names" if paths else "names of text encoders"
    return f"{whose} in {' and '.join(styles)}"


def _twice(tensors: Mapping[str, Sequence[Named]]) -> tuple[str, ...]:
    seen: set[str] = set()
    found: dict[str, None] = {}
    for named in tensors.values():
        for one in named:
            if one.key in seen:
                found[one.name] = None
            seen.add(one.key)
    return tuple(found)


def _kept_names(keys: Mapping[str, Key | None], tensors: Mapping[str, Sequence[Named]]) -> dict[str, str]:
    return {
        named[0].name: key.partition(".")[0]
        for key, named in tensors.items()
        if (taken := keys.get(key)) is not None and taken.flat and len(named) == 1 and key.startswith("lora_")
    }
