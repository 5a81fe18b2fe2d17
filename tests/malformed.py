"""Small malformed files of every format that is read, the same for the same number."""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Callable
from typing import Any

SIZES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
    "U16": 2, "U32": 4, "U64": 8, "C64": 8, "F8_E8M0": 1, "F4": 1,
}  # fmt: skip
NUMBERS = [0.0, 1.0, -1.0, 0.5, 1e30, -1e38, 1e-40, math.nan, math.inf, -math.inf]
TEXT = "lora_te_text_model_encoder_layers_0_mlp_fc1"
UNET = "lora_unet_down_blocks_0_attentions_0_proj_in"
MIDDLE = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
CONV = "lora_unet_down_blocks_0_resnets_0_conv1"
ODD_TEXTS = [
    "",
    "x" * 3000,
    "\x00",
    "猫",
    "<b>",
    "a=b=c",
    "1e999",
    "9" * 5000,
    "../..",
    "nan",
    "-1",
    "١٢",
    "\ud7ff",
    "'",
    '"',
    "[",
    "{",
    "\r",
]
Entries = dict[str, tuple[str, list[int], bytes]]


def odd_value(rng: random.Random, depth: int = 0) -> Any:
    """Any JSON value."""
    kind = rng.randrange(9 if depth < 3 else 6)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind == 1:
        return rng.choice([0, 1, -1, 2, 64, 2**31, 2**63, -(2**70), 10**30])
    if kind == 2:
        return rng.choice(NUMBERS)
    if kind <= 5:
        return rng.choice([*ODD_TEXTS, "1", "0.5", "True", "cat"])
    if kind <= 7:
        return [odd_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice([*ODD_TEXTS[:8], "a", "b"]): odd_value(rng, depth + 1) for _ in range(rng.randrange(3))}


def changed_somewhere(rng: random.Random, value: Any) -> Any:
    """The same JSON value with one place of it another, gone, or twice."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        rest = {name: inner for name, inner in value.items() if name != key}
        return rest if rng.random() < 0.1 else {**rest, key: changed_somewhere(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        return [*value[:place], *([] if rng.random() < 0.1 else [changed_somewhere(rng, value[place])]), *value[place + 1 :]]
    return odd_value(rng)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, taken away or added."""
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5])):
        place = rng.randrange(max(1, len(changed)))
        if rng.random() < 0.7:
            changed[place : place + 1] = bytes([rng.choice([0, 255, 34, 123, 10, 13, rng.randrange(256)])])
        elif rng.random() < 0.5:
            del changed[place : place + rng.randrange(1, 20)]
        else:
            changed[place:place] = rng.randbytes(rng.randrange(1, 20))
    return bytes(changed)


def numbers(rng: random.Random, dtype: str, count: int, *, odd: bool = False) -> bytes:
    """The bytes of a tensor; with `odd` some of its numbers are none, or too large."""
    if dtype in ("F32", "F64"):
        values = [rng.choice(NUMBERS) if odd and rng.random() < 0.3 else rng.uniform(-1, 1) for _ in range(count)]
        return struct.pack(f"<{count}{'f' if dtype == 'F32' else 'd'}", *values)
    return rng.randbytes(count * SIZES[dtype]) if odd else bytes(count * SIZES[dtype])


def safetensors(entries: Entries, metadata: dict[str, Any] | None = None) -> bytes:
    """A safetensors file, whatever its header says."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    data = b""
    for key, (dtype, shape, content) in entries.items():
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


TYPES: dict[str, dict[str, list[int]]] = {
    "lora": {"lora_down.weight": [2, 6], "lora_up.weight": [5, 2]},
    "mid": {"lora_down.weight": [2, 6, 1, 1], "lora_mid.weight": [2, 2, 3, 3], "lora_up.weight": [5, 2, 1, 1]},
    "locon": {"lora_down.weight": [2, 6, 3, 3], "lora_up.weight": [5, 2, 1, 1]},
    "dora": {"lora_down.weight": [2, 6], "lora_up.weight": [5, 2], "dora_scale": [1, 6]},
    "loha": {"hada_w1_a": [5, 2], "hada_w1_b": [2, 6], "hada_w2_a": [5, 2], "hada_w2_b": [2, 6]},
    "tucker": {"hada_t1": [2, 2, 3, 3], "hada_w1_a": [2, 5], "hada_w1_b": [2, 6], "hada_t2": [2, 2, 3, 3], "hada_w2_a": [2, 5], "hada_w2_b": [2, 6]},
    "lokr": {"lokr_w1": [1, 2], "lokr_w2_a": [5, 2], "lokr_w2_b": [2, 3]},
    "lokr whole": {"lokr_w1": [1, 2], "lokr_w2": [5, 3]},
    "lokr split": {"lokr_w1_a": [1, 2], "lokr_w1_b": [2, 2], "lokr_w2_a": [5, 2], "lokr_w2_b": [2, 3]},
    "ia3": {"weight": [6], "on_input": []},
    "oft": {"oft_blocks": [2, 3, 3]},
    "boft": {"oft_blocks": [1, 2, 3, 3]},
    "glora": {"a1.weight": [2, 6], "a2.weight": [6, 2], "b1.weight": [2, 6], "b2.weight": [6, 2]},
    "full": {"diff": [5, 6]},
    "norm": {"w_norm": [5], "b_norm": [5]},
    "dylora": {"lora_down.weight": [4, 6], "lora_up.weight": [5, 4]},
    "peft": {"lora_A.weight": [2, 6], "lora_B.weight": [5, 2], "lora_magnitude_vector": [5]},
    "word": {"cat.emb_params": [2, 8]},
    "words of two encoders": {"cat.clip_l": [2, 8], "cat.clip_g": [2, 12]},
    "an old word": {"cat.string_to_param.*": [2, 8]},
}  # fmt: skip


def lora(rng: random.Random) -> bytes:
    """A LoRA of one or two layers of any type, with one to three things wrong, or none."""
    entries: Entries = {}
    names = [TEXT, UNET, MIDDLE, CONV]
    kind = rng.choice(list(TYPES))
    for name in rng.sample(names, rng.choice([1, 1, 2])):
        start = "bundle_emb" if "word" in kind else name
        for end, shape in TYPES[kind if rng.random() < 0.9 else rng.choice(list(TYPES))].items():
            entries[f"{start}.{end}"] = ("F32", list(shape), numbers(rng, "F32", math.prod(shape)))
        if rng.random() < 0.7:
            entries[f"{start}.alpha"] = ("F32", [], numbers(rng, "F32", 1))
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
        _break_lora(rng, entries)
    metadata: dict[str, Any] | None = rng.choice([None, {}, {"ss_base_model_version": rng.choice(["sd_v1", "sdxl_", "x"])}])
    if rng.random() < 0.4:
        arguments = rng.choice(
            ['{"unit": "1"}', '{"unit": 0}', '{"unit": -2}', '{"unit": 1e999}', "[]", "3", "{", '{"unit": null}', ""]
        )
        metadata = {"ss_network_module": "networks.dylora", "ss_network_args": arguments, **(metadata or {})}
    content = safetensors(entries, metadata)
    return mutated(content, rng) if rng.random() < 0.15 else content


def _break_lora(rng: random.Random, entries: Entries) -> None:
    if not entries:
        return
    key = rng.choice(list(entries))
    dtype, shape, content = entries[key]
    layer = key.partition(".")[0]
    what = rng.randrange(9)
    if what == 0:
        del entries[key]
    elif what == 1:
        shape = rng.choice(
            [[], [0], [4], [2, 0], [0, 6], [6, 2], [3, 6], [5, 3], [2, 6, 1], [2, 6, 3, 3], [1, 1, 1, 1, 6], [2, 3, 4, 5], [1, 5]]
        )
        entries[key] = (
            dtype,
            shape,
            numbers(rng, "F32", math.prod(shape)) if dtype == "F32" else bytes(math.prod(shape) * SIZES[dtype]),
        )
    elif what == 2:
        dtype = rng.choice(list(SIZES))
        entries[key] = (dtype, shape, numbers(rng, dtype, math.prod(shape), odd=rng.random() < 0.5))
    elif what == 3:
        entries[key] = (dtype, shape, numbers(rng, dtype, math.prod(shape), odd=True))
    elif what == 4:
        dtype, shape = rng.choice(list(SIZES)), rng.choice([[], [1], [2], [0], [1, 1], [2, 3]])
        entries[f"{layer}.alpha"] = (dtype, shape, numbers(rng, dtype, math.prod(shape), odd=True))
    elif what == 5:
        shape = rng.choice([[6], [5], [1, 6], [5, 1], [1, 6, 1, 1], [5, 6], [], [0], [1]])
        entries[f"{layer}.dora_scale"] = ("F32", shape, numbers(rng, "F32", math.prod(shape)))
    elif what == 6:
        entries[rng.choice([f"{layer}x{key[len(layer) :]}", layer, "." + key, key + ".", "", key.upper()])] = entries.pop(key)
    elif what == 7:
        end = rng.choice(["weight", "bias", "diff_b", "lora_mid.weight", "hada_t1", "rescale", "scalar", "lokr_t2", "on_input"])
        entries[f"{layer}.{end}"] = ("F32", [2], numbers(rng, "F32", 2))
    else:  # short of what its shape says, or with more behind it
        entries[key] = (dtype, shape, content[: len(content) // 2] if rng.random() < 0.5 else content + b"x")


def checkpoint(rng: random.Random, shapes: dict[str, list[int]]) -> bytes:
    """A checkpoint with the layout of `shapes` and sides of next to nothing, without some keys, or with other shapes."""
    entries: Entries = {}
    for key, shape in shapes.items():
        small = [side if side == 4 else min(side, 2) for side in shape]
        entries[key] = ("U8", small, bytes(math.prod(small)))
    keys = list(entries)
    for _ in range(rng.choice([0, 1, 3, 30])):
        key = rng.choice(keys)
        what = rng.randrange(3)
        if what == 0:
            start = key[: rng.randrange(20, 60)]
            entries = {name: entry for name, entry in entries.items() if not name.startswith(start)}
        elif what == 1:
            shape = rng.choice([[], [0], [4], [2, 4], [2, 4, 3, 3], [2, 9, 3, 3], [2, 5, 1, 1], [0, 4], [1, 1, 1, 1, 1]])
            entries[key] = ("U8", shape, bytes(math.prod(shape)))
        else:
            entries.pop(key, None)
    important = ["model.diffusion_model.input_blocks.0.0.weight", "model.diffusion_model.middle_block.1.proj_in.weight"]
    if rng.random() < 0.3:
        shape = rng.choice([[], [4], [2, 4], [0, 4]])
        entries[rng.choice(important)] = ("U8", shape, bytes(math.prod(shape)))
    content = safetensors(entries)
    return mutated(content, rng) if rng.random() < 0.3 else content


def settings(rng: random.Random, names: list[str]) -> str:
    """Settings of any keys with any values, as JSON."""
    given = {
        rng.choice(names) if rng.random() < 0.9 else rng.choice(ODD_TEXTS): odd_value(rng) for _ in range(rng.randrange(1, 12))
    }
    if rng.random() < 0.4:
        subset = {
            rng.choice(["image_dir", "num_repeats", "is_reg", "class_tokens", *names[:9]]): odd_value(rng) for _ in range(3)
        }
        given = {
            rng.choice(["datasets", "subsets", "general", "sections"]): rng.choice(
                [[{"subsets": [subset]}], [subset], subset, odd_value(rng)]
            ),
            **given,
        }
    return json.dumps(given)


def toml(rng: random.Random, names: list[str]) -> str:
    """The same as TOML, with sections, or no TOML at all."""
    lines = []
    for _ in range(rng.randrange(1, 12)):
        value = odd_value(rng)
        text = (
            json.dumps(value)
            if isinstance(value, (str, bool, int))
            else rng.choice(["nan", "inf", "[1, 2]", '["a"]', "{a = 1}", "07:32:00", "1979-05-27", "", "[", "'"])
        )
        lines.append(f"{rng.choice(names)} = {text}")
        if rng.random() < 0.3:
            lines.append(
                rng.choice(["[[datasets]]", "[[datasets.subsets]]", "[general]", "[a.b]", "[[subsets]]", "[", "[datasets]"])
            )
    return "\n".join(lines)


def prompts(rng: random.Random) -> bytes:
    """Lines of sample prompts with flags of all kinds."""
    flags = ["--n", "--w", "--h", "--d", "--l", "--s", "--x", "--", "--W", "--ss", "--w=3"]
    lines = []
    for _ in range(rng.randrange(1, 5)):
        words = ["a cat"]
        for _ in range(rng.randrange(5)):
            words.append(f"{rng.choice(flags)} {rng.choice([*ODD_TEXTS, '64', '-1', '0.5', '1e999', 'nan', '64.0'])}")
        lines.append(" ".join(words))
    content = rng.choice(["\n", "\r", "\r\n"]).join(lines).encode("utf-8", "surrogatepass")
    return mutated(content, rng) if rng.random() < 0.4 else content


def text_bytes(rng: random.Random) -> bytes:
    """A file that ought to be a caption."""
    makers: list[Callable[[], bytes]] = [
        lambda: rng.randbytes(rng.randrange(40)),
        lambda: b"",
        lambda: "a cat\n\nand more\r\n".encode(rng.choice(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"])),
        lambda: rng.choice(ODD_TEXTS).encode("utf-8", "surrogatepass"),
        lambda: ("(" * rng.randrange(200) + "cat" + ":1.1)" * rng.randrange(200)).encode(),
        lambda: ("a, " * rng.randrange(300)).encode(),
    ]
    return rng.choice(makers)()


def yaml_bytes(rng: random.Random) -> bytes:
    """A configuration beside a checkpoint."""
    texts = [
        "model: {params: {parameterization: v}}", "model:", "model: 3", "[1, 2]", "model: {params: null}", "a: &a [*a]", "x: 2001-99-99",
        "model: {params: {denoiser_config: 3}}", "model: {params: {denoiser_config: {params: {scaling_config: {target: 3}}}}}",
        "[" * 3000, "model: !!python/object/apply:os.system [ls]", "x: !!binary '*'", "{", "? [a]", "{[a]: 1}", "x: 1__2", "0x" + "f" * 5000,
        "9" * 5000, "x: .inf", "- " * 2000,
    ]  # fmt: skip
    content = rng.choice(texts).encode()
    return mutated(content, rng) if rng.random() < 0.5 else content
