"""A Stable Diffusion checkpoint file -> its family, and diffusers' modules with its weights."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from torch import nn

from lib_lora.errors import ModelError
from lib_lora.families.family import DetectedModel, Family
from lib_lora.families.known import TRAINABLE
from lib_lora.files.safetensors_header import tensor_shapes
from lib_lora.hosts.architecture import UNET, V_MARK, VAE, family_of, text_config, unet_config, vae_config
from lib_lora.model.layer_names.text import FUSED, OPEN_CLIP_PARTS
from lib_lora.paths import path_problem

_LEGACY_HASH_START, _LEGACY_HASH_LENGTH = 0x100000, 0x10000
_NOT_WHOLE = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError)  # raised if shapes are missing or odd
MAX_YAML_BYTES, MOST_BRACKETS = 2**16, 200  # the webui's own files have 3 KB and 10
KEYS = "the keys and shapes of the checkpoint file"
MARKED = f"marked by the tensor {V_MARK} in the file"


Weights = dict[str, torch.Tensor]
_WHOLE = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_LAYER = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)\.(weight|bias)")
_FUSED = re.compile(r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)")


@dataclass(frozen=True)
class Modules:
    """The networks of a checkpoint."""

    unet: nn.Module
    vae: nn.Module
    text_encoders: tuple[nn.Module, ...]
    detected: DetectedModel


class _Shape(tuple[int, ...]):
    """A tensor's shape with the tensor's attributes `shape` and `ndim`."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self

    @property
    def ndim(self) -> int:
        return len(self)


def read_shapes(path: Path) -> Mapping[str, Any]:
    """The shape of every tensor, from the file's header alone; cached until the file changes.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        told = path.stat()
        return _shapes(path, told.st_size, told.st_mtime_ns)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"Checkpoint (checkpoint): {str(path)!r} cannot be read ({error}).") from error


@lru_cache(maxsize=4)
def _shapes(path: Path, _size: int, _changed: int) -> Mapping[str, Any]:
    with safe_open(path, framework="pt"):  # the library validates the header
        return MappingProxyType({key: _Shape(shape) for key, shape in tensor_shapes(path).items()})


def load_modules(path: Path, dtype: torch.dtype) -> Modules:
    """U-Net and text encoders as `dtype`, VAE in fp32. Weights are assigned without initialisation, one network at a time.

    Raises:
        ModelError: a tensor is missing, or the model cannot be trained.
    """
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

    made = empty_modules(path)
    unet, vae, encoders = made.unet, made.vae, made.text_encoders
    _fill(unet, convert_ldm_unet_checkpoint(_read(path, UNET), dict(unet.config)), dtype)  # type: ignore[arg-type]
    _fill(vae, convert_ldm_vae_checkpoint(_read(path, VAE), dict(vae.config)), torch.float32)  # type: ignore[arg-type]
    for read, encoder in zip(made.detected.family.text_encoders, encoders):
        _fill(encoder, text_weights(_read(path, read.weights), read.weights, encoder), dtype)
    return made


def empty_modules(path: Path) -> Modules:
    """The networks on torch's meta device in fp32, from the file's header alone.

    Raises:
        ModelError: the model cannot be trained.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    found = kind_of_file(path)
    of_unet, of_vae, of_text = _configs(read_shapes(path), found.family)
    encoders: list[nn.Module] = []
    try:
        with torch.device("meta"):
            unet = UNet2DConditionModel(**of_unet)
            vae = AutoencoderKL(**of_vae)
            for config, encoder in zip(of_text, found.family.text_encoders):
                kind = CLIPTextModelWithProjection if encoder.pools else CLIPTextModel
                encoders.append(kind(CLIPTextConfig(**config)).eval())
    except (*_NOT_WHOLE, RuntimeError) as error:
        raise ModelError(f"The shapes of the checkpoint {path.name!r} are not those of {found.family.name} ({error}).") from error
    return Modules(unet.eval(), vae.eval(), tuple(encoders), found)


def _configs(shapes: Mapping[str, Any], family: Family) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """Configurations of U-Net, VAE and text encoders; raises one of `_NOT_WHOLE` if tensors are missing or odd."""
    encoders = [text_config(shapes, encoder.weights) for encoder in family.text_encoders]
    for config, encoder in zip(encoders, family.text_encoders):
        config["num_hidden_layers"] -= encoder.unread
    unet, vae = unet_config(shapes), vae_config(shapes)
    told = unet["out_channels"], vae["latent_channels"], 2 ** (len(vae["block_out_channels"]) - 1)
    if told != (family.latent_channels, family.latent_channels, family.vae_factor):
        raise ValueError(f"latents have {told[1]} channels and {told[2]} pixels on a side, the U-Net gives {told[0]}")
    return unet, vae, encoders


def kind_of_file(path: Path) -> DetectedModel:
    """The detected model, from the checkpoint's header and a configuration beside it.

    Raises:
        ModelError: it cannot be read, or the model cannot be trained.
    """
    start = f"Checkpoint (checkpoint): {str(path)!r} "
    problem = path_problem(str(path))
    if problem:
        raise ModelError(start + problem)
    if not path.is_file():
        raise ModelError(start + "does not exist.")
    if path.suffix != ".safetensors":
        raise ModelError(start + "is not a .safetensors file; other formats can run code when they are read.")
    shapes = read_shapes(path)
    try:
        family = family_of(shapes)
        if isinstance(family, str):
            raise ModelError(start + f"is {family}; only {TRAINABLE}.")
        _configs(shapes, family)
    except _NOT_WHOLE as error:
        told = f"is incomplete: a tensor is missing or has another shape ({type(error).__name__}: {error})."
        raise ModelError(start + told) from error
    return DetectedModel(family, KEYS, says_v(path, shapes))


def says_v(path: Path, shapes: Mapping[str, Any]) -> str:
    """Why the model counts as predicting v (the file's mark, or a webui's `NAME.yaml` beside it); empty if it does not.

    Raises:
        ModelError: the configuration cannot be read.
    """
    if V_MARK in shapes:
        return MARKED
    beside = path.with_suffix(".yaml")
    if not beside.is_file():
        return ""
    try:
        told = beside.stat()
        return f"set in {beside.name}" if _means_v(beside, told.st_size, told.st_mtime_ns) else ""
    except (OSError, yaml.YAMLError, RecursionError, *_NOT_WHOLE) as error:
        reason = repr(error)[:200]
        raise ModelError(f"The configuration {str(beside)!r} next to the checkpoint cannot be read ({reason}).") from error


@lru_cache(maxsize=4)
def _means_v(beside: Path, size: int, _changed: int) -> bool:
    """Whether a webui's configuration is of a model that predicts v; cached until the file changes."""
    if size > MAX_YAML_BYTES:
        raise OSError(f"it is larger than {MAX_YAML_BYTES // 2**10} KB")
    text = beside.read_text(encoding="utf-8")
    if text.count("[") + text.count("{") > MOST_BRACKETS:  # the parser's time is quadratic in open brackets
        raise ValueError(f"it has more than {MOST_BRACKETS} brackets")
    parameters = yaml.safe_load(text)["model"]["params"]
    scaling = parameters.get("denoiser_config", {}).get("params", {}).get("scaling_config", {}).get("target", "")
    return bool(parameters.get("parameterization") == "v" or scaling.endswith(".VScaling"))


def legacy_hash(path: Path) -> str:
    """sd-scripts `model_hash`: 8 digits of the SHA-256 of 64 KiB at 1 MiB."""
    with path.open("rb") as file:
        file.seek(_LEGACY_HASH_START)
        return hashlib.sha256(file.read(_LEGACY_HASH_LENGTH)).hexdigest()[:8]


def sha256(path: Path) -> str:
    """SHA-256 of the whole file; cached until the file changes."""
    told = path.stat()
    return _sha256(path, told.st_size, told.st_mtime_ns)


@lru_cache(maxsize=4)
def _sha256(path: Path, _size: int, _changed: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
    return digest.hexdigest()


def _read(path: Path, prefix: str) -> Weights:
    """The tensors below `prefix`, under their full names."""
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys() if key.startswith(prefix)}  # noqa: SIM118


def _fill(module: nn.Module, weights: Weights, dtype: torch.dtype) -> None:
    """Assign `weights` to a module on the meta device, and to its non-persistent buffers (position ids)."""
    cast = {}
    for key in list(weights):  # one by one, so that two copies of all tensors never exist
        value = weights.pop(key)
        cast[key] = value.to(dtype) if value.is_floating_point() else value.clone()  # a view would keep the whole file mapped
    missing, _ = module.load_state_dict(cast, strict=False, assign=True)
    if missing:
        raise ModelError(f"The checkpoint lacks {len(missing)} tensors, such as {missing[0]!r}.")
    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta:
            owner, _, leaf = name.rpartition(".")
            module.get_submodule(owner).register_buffer(leaf, cast[name], persistent=False)


def text_weights(weights: Weights, prefix: str, module: nn.Module) -> Weights:
    """The tensors below `prefix` under the names of `module`, for any transformers version. Empties `weights`."""
    part = {key.removeprefix(prefix): value for key, value in weights.items()}
    weights.clear()
    part = _from_open_clip(part) if prefix.endswith(".model.") else part
    positions = "text_model.embeddings.position_ids"
    part.setdefault(positions, torch.arange(part["text_model.embeddings.position_embedding.weight"].shape[0])[None])
    if hasattr(module, "text_model"):
        return part
    return {key.removeprefix("text_model."): value for key, value in part.items()}  # transformers 5


def _from_open_clip(part: Weights) -> Weights:
    """Convert open_clip's names: the fused in_proj becomes q, k and v, and the projection a Linear."""
    found: Weights = {}
    for key, value in part.items():
        layer, fused = _LAYER.fullmatch(key), _FUSED.fullmatch(key)
        if fused:
            for name, piece in zip(FUSED, value.chunk(3)):
                found[f"text_model.encoder.layers.{fused[1]}.{name}.{fused[2]}"] = piece
        elif layer:
            found[f"text_model.encoder.layers.{layer[1]}.{OPEN_CLIP_PARTS[layer[2]]}.{layer[3]}"] = value
        elif key in _WHOLE:
            found[f"text_model.{_WHOLE[key]}"] = value
        elif key == "text_projection":
            found["text_projection.weight"] = value.t().contiguous()
    return found
