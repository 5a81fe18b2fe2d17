"""Reads a LoRA file of any program under the internal layer names. Everything that uses LoRA files reads them here."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from lib_lora.errors import LoraFileError
from lib_lora.families.family import Family
from lib_lora.files.lora_file import State, read
from lib_lora.model.layer_names.alphas import ADAPTER, CONFIG
from lib_lora.model.layer_names.further import is_further
from lib_lora.model.layer_names.keys import Named
from lib_lora.model.layer_names.others import NO_LORA
from lib_lora.model.layer_names.translate import Translation, translate

Shape = tuple[int, ...]
_SIDECAR, _SIDECAR_BYTES = "adapter_config.json", 2**20
_LOOKED_AT = "supported are the formats of kohya, ldm, diffusers, PEFT, OneTrainer, ComfyUI and LyCORIS"


@dataclass(frozen=True)
class LoraLayers:
    """A file's tensors. `state`: under the internal names, with the alphas of its metadata. `raw`: as they are in the file."""

    state: State
    metadata: Mapping[str, str]
    names: Translation
    raw: State

    def kept(self, layers: Collection[str]) -> State:
        """Unchanged tensors of `layers`, to write to another file; layers that are never trained keep the file's own names."""
        found: State = {}
        for key, value in self.state.items():
            name, _, end = key.partition(".")
            if name in layers:
                written = self.names.kept.get(name, name) if is_further(name) else name
                found[f"{written}.{end}"] = value
        return found


class LoraFiles:
    """The LoRA files of one request, each read once and cached until `forget`."""

    def __init__(self) -> None:
        self._read: dict[str, tuple[State, dict[str, str]] | LoraFileError] = {}

    def layers(self, path: str, family: Family | None = None) -> LoraLayers:
        """See `read_layers`."""
        if path not in self._read:
            try:
                self._read[path] = read(Path(path))
            except LoraFileError as error:
                self._read[path] = error
        found = self._read[path]
        if isinstance(found, LoraFileError):
            raise LoraFileError(str(found))
        return _named_here(Path(path), *found, family)

    def forget(self) -> None:
        """Clear the cache, which a run no longer needs once its adapters exist."""
        self._read.clear()


def read_layers(path: Path, family: Family | None = None) -> LoraLayers:
    """The LoRA at `path`; if it fits several families, under the names of `family`.

    Raises:
        LoraFileError: the file is missing, is no safetensors file, or its metadata cannot be read.
    """
    return _named_here(path, *read(path), family)


def _named_here(path: Path, raw: State, metadata: dict[str, str], family: Family | None) -> LoraLayers:
    names = _translated(path, {key: tuple(value.shape) for key, value in raw.items()}, metadata, family)
    sides = {one.name: raw[key].dim() for key, named in names.tensors.items() for one in named if one.end == "lora_down.weight"}
    state = {one.key: _tensor(one, raw[key], sides) for key, named in names.tensors.items() for one in named}
    for name, scale in names.scales.items():
        state[f"{name}.lokr_w1"] = state[f"{name}.lokr_w1"].float() * scale
    said = {f"{name}.alpha": torch.tensor(alpha) for name, alpha in names.alphas.items()}
    return LoraLayers({**state, **said}, metadata, names, raw)


def names_problem(path: str, names: Translation) -> str | None:
    """Why the file's names cannot be used, in one sentence; None if each one is known."""
    if names.other:
        what = f"contains {names.other}" if names.other in NO_LORA else f"is made for {names.other}"
        return f"{path!r} {what}, which cannot be trained; choose a LoRA of SD 1.x, SD 2.x or SDXL."
    if names.twice:
        return f"{path!r} has {len(names.twice)} layers under two names each, such as {names.twice[0]!r}; remove one of the two."
    if names.unknown and all(key.endswith(".bias") for key in names.unknown):
        return (
            f"{path!r} has {len(names.unknown)} biases, such as {names.unknown[0]!r:.200}, which cannot be trained; choose a "
            "LoRA that was made without them (PEFT's bias and lora_bias)."
        )
    if names.unknown:
        return (
            f"{path!r} has {len(names.unknown)} tensors that cannot be trained, such as {names.unknown[0]!r:.200}, a name that "
            f"does not exist in {names.family_words}; {_LOOKED_AT}: convert the file to kohya's names, or choose another."
        )
    return None


def _translated(path: Path, held: Mapping[str, Shape], metadata: Mapping[str, str], family: Family | None) -> Translation:
    try:
        return translate(held, {**metadata, **_beside(path, metadata)}, family)
    except LoraFileError as error:
        raise LoraFileError(f"{str(path)!r} cannot be read: {error}.") from error


def _beside(path: Path, metadata: Mapping[str, str]) -> dict[str, str]:
    """Metadata from the configuration beside PEFT's own files, which states their alphas."""
    config = path.with_name(_SIDECAR)
    if not path.name.startswith("adapter_model") or ADAPTER in metadata or not config.is_file():
        return {}
    try:
        with config.open("rb") as file:
            content = file.read(_SIDECAR_BYTES + 1)
        if len(content) > _SIDECAR_BYTES:
            raise LoraFileError(f"{_SIDECAR} next to it has more than {_SIDECAR_BYTES} bytes")
        return {CONFIG: content.decode()}
    except (OSError, UnicodeDecodeError) as error:
        raise LoraFileError(f"{_SIDECAR} next to it cannot be read") from error


def _tensor(one: Named, value: torch.Tensor, sides: Mapping[str, int]) -> torch.Tensor:
    """The tensor for the internal name `one`. `sides`: number of dimensions of each layer's lora_down."""
    if one.third is not None:
        return value.chunk(3)[one.third].clone()
    return value.reshape(-1, *[1] * (max(sides.get(one.name, 2), 2) - 1)) if one.rows else value
