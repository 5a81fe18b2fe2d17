"""Parses a key of a LoRA file into a part of the model, a layer of the part, and a tensor of the layer.

Kohya's and LyCORIS' keys are `lora_unet_PATH.END` with underscores in the path. Those of diffusers, PEFT, ComfyUI and
OneTrainer's newer forms have dots in the path and name the part before it; PEFT calls the two matrices lora_A and lora_B,
diffusers' older form lora.down and lora.up.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

BUNDLE = "bundle_emb"
UNET, TEXT, TEXT_1, TEXT_2, TEXT_H = "unet", "text", "text 1", "text 2", "text h"
_FLAT = {  # prefixes of kohya, and of LyCORIS' wrapper and sd-scripts' OFT
    "lora_unet_": UNET, "oft_unet_": UNET, "lycoris_": UNET, "lora_te_": TEXT, "oft_te_": TEXT, "lora_te1_": TEXT_1,
    "oft_te1_": TEXT_1, "lora_te2_": TEXT_2, "oft_te2_": TEXT_2,
}  # fmt: skip
_DOTTED = {  # the longest first
    "text_encoders.clip_l.transformer.": TEXT_1, "text_encoders.clip_g.transformer.": TEXT_2,
    "text_encoders.clip_h.transformer.": TEXT_H, "conditioner.embedders.0.": TEXT_1, "conditioner.embedders.1.": TEXT_2,
    "model.diffusion_model.": UNET, "text_encoders.clip_l.": TEXT_1, "text_encoders.clip_g.": TEXT_2,
    "text_encoders.clip_h.": TEXT_H, "cond_stage_model.": TEXT, "diffusion_model.": UNET, "text_encoder_2.": TEXT_2,
    "text_encoder_1.": TEXT_1, "text_encoder.": TEXT, "clip_l.": TEXT_1, "clip_g.": TEXT_2, "clip_h.": TEXT_H, "unet.": UNET,
}  # fmt: skip
_OF_A_UNET = re.compile(
    r"(?:input_blocks|output_blocks|middle_block|down_blocks|up_blocks|mid_block|time_embed|label_emb|out|conv_in|conv_out"
    r"|conv_norm_out|time_embedding|add_embedding)\."
)
_OF_A_TEXT = re.compile(r"(?:text_model|encoder|transformer|model\.transformer)\.(?:encoder|layers|resblocks|text_model)\.")
_FLAT_BARE = re.compile(r"(input_blocks_|output_blocks_|middle_block_|down_blocks_|up_blocks_|mid_block_)|text_model_\w+_layers_")
_WRAPPER = "base_model.model."
_HALVES = {"A": "lora_down.weight", "B": "lora_up.weight", "down": "lora_down.weight", "up": "lora_up.weight"}
_END = re.compile(  # the end of a key with dots; the group that matches tells its form
    r"\.lora_(?P<peft>[AB])(?:\.[\w-]+)?\.weight|(?:[._]lora|\.lora_linear_layer)\.(?P<diffusers>down|up)\.weight"
    r"|\.(?P<rows>lora_magnitude_vector|magnitude)(?:\.[\w-]+){0,2}"
    r"|\.(?P<kept>lora_(?:down|up|mid)\.weight|dora_scale|alpha|hada_w[12]_[ab]|hada_t[12]|lokr_w[12](?:_[ab])?|lokr_t2|diff(?:_b)?"
    r"|[wb]_norm|oft_(?:blocks|diag)|rescale|[ab][12]\.weight|on_input|scale|scalar)(?:\.default)?"
    r"|\.(?P<weight>weight)"
)
_MOST, _MOST_END = 1000, 200  # characters; no key or end is longer, even with an adapter's name in it


@dataclass(frozen=True)
class Key:
    """A parsed key.

    `part`: of the model. `path`: with underscores; `dotted`: as written. `end`: as kohya and LyCORIS write it.
    `flat`: the key has kohya's form. `rows`: the tensor is PEFT's magnitude, one number per output.
    """

    part: str
    path: str
    end: str
    flat: bool
    rows: bool = False
    style: str = "kohya"
    dotted: str = ""


@dataclass(frozen=True)
class Named:
    """Internal name of one tensor. `third`: only that third of the tensor's rows. `rows`: see `Key`."""

    name: str
    end: str
    third: int | None = None
    rows: bool = False

    @property
    def key(self) -> str:
        return f"{self.name}.{self.end}"


def key_of(key: str) -> Key | None:
    """The parsed key; None if its form is unknown or it is too long."""
    if len(key) > _MOST:
        return None
    for prefix, part in _FLAT.items():
        if key.startswith(prefix):
            path, _, end = key.removeprefix(prefix).partition(".")
            return Key(part, path, *_flat_end(end), style="lycoris" if prefix == "lycoris_" else "kohya") if end else None
    path, _, end = key.partition(".")
    bare = _FLAT_BARE.match(path)
    if bare and end:
        return Key(UNET if bare[1] else TEXT, path, *_flat_end(end), style="bare")
    found = next((match for match in _END.finditer(key, max(len(key) - _MOST_END, 0)) if match.end() == len(key)), None)
    if found is None:
        return None
    path = key[: found.start()]
    wrapped = path.startswith(_WRAPPER)
    while path.startswith(_WRAPPER):
        path = path.removeprefix(_WRAPPER)
    part = next((prefix for prefix in _DOTTED if path.startswith(prefix)), "")
    inner = path.removeprefix(part)
    where = _DOTTED[part] if part else UNET if _OF_A_UNET.match(path + ".") else TEXT if _OF_A_TEXT.match(path + ".") else ""
    if not where:
        return None
    inner = ".".join(piece for piece in inner.split(".") if piece != "processor")
    style = "comfy" if part.startswith(("diffusion_model", "text_encoders")) else "peft" if found["peft"] or wrapped else "dotted"
    style = "diffusers" if found["diffusers"] else style
    return Key(where, inner.replace(".", "_"), _end(found), False, found["rows"] is not None, style, inner)


def _flat_end(end: str) -> tuple[str, bool, bool]:
    """`end`, `flat` and `rows` of a key of kohya's form."""
    found = _END.fullmatch("." + end)
    return (_end(found) if found else end), True, bool(found and found["rows"])


def _end(found: re.Match[str]) -> str:
    half = found["peft"] or found["diffusers"]
    if half:
        return _HALVES[half]
    return "dora_scale" if found["rows"] else found["kept"] or found["weight"]
