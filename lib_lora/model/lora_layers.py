"""A LoRA file under the names that are used here, whatever program wrote it: the one way in for all that goes on from LoRAs."""

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
from lib_lora.model.layer_names.others import NO_LORA
from lib_lora.model.layer_names.translate import Named, Translation, translate

Shape = tuple[int, ...]
_SIDECAR, _SIDECAR_BYTES = "adapter_config.json", 2**20
_LOOKED_AT = "supported are the formats of kohya, ldm, diffusers, PEFT, OneTrainer, ComfyUI and LyCORIS"


@dataclass(frozen=True)
class LoraLayers:
    """`state`: the file's tensors under the names here, with alphas that its metadata say. `raw`: as they lie in the file."""

    state: State
    metadata: Mapping[str, str]
    names: Translation
    raw: State

    def kept(self, layers: Collection[str]) -> State:
        """The tensors of these layers for another file, bit for bit; those that are never trained under the file's own names."""
        found: State = {}
        for key, value in self.state.items():
            name, _, end = key.partition(".")
            if name in layers:
                written = self.names.kept.get(name, name) if is_further(name) else name
                found[f"{written}.{end}"] = value
        return found


class LoraFiles:
    """The LoRA files of one request, each read once and kept until `forget`."""

    def __init__(self) -> None:
        self._read: dict[str, tuple[State, dict[str, str]] | LoraFileError] = {}

    def layers(self, path: str, family: Family | None = None) -> LoraLayers:
        """As `read_layers`."""
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
        """Let go of what was read: a run needs it no more once its adapters are made."""
        self._read.clear()


def read_layers(path: Path, family: Family | None = None) -> LoraLayers:
    """The LoRA at `path`; of a file that can be of several families under the names of `family`.

    Raises:
        LoraFileError: it is missing, no safetensors file, or its metadata cannot be read.
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
    """Why the file's names cannot be gone by, in one sentence; None where each has its place."""
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
    """PEFT's own files say their alphas in a file beside them."""
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
    """The tensor as it is called here. `sides`: dimensions of each layer's first half."""
    if one.third is not None:
        return value.chunk(3)[one.third].clone()
    return value.reshape(-1, *[1] * (max(sides.get(one.name, 2), 2) - 1)) if one.rows else value
