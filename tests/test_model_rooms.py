"""The modules that compute and name layers, each by itself."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from lib_lora.errors import LoraFileError
from lib_lora.families.family import inpainting
from lib_lora.families.sd1 import SD1
from lib_lora.families.sd2 import SD2
from lib_lora.families.sdxl import SDXL
from lib_lora.model.adapter_forward import composed
from lib_lora.model.base import Target
from lib_lora.model.checkpointing import checkpointed_forwards
from lib_lora.model.inpainting import Surroundings
from lib_lora.model.layer_names.alphas import said_alphas, said_scales
from lib_lora.model.layer_names.families import Layer, by_metadata, families_of, narrowed
from lib_lora.model.layer_names.keys import UNET, key_of
from lib_lora.model.layer_names.others import CHECKPOINT, CONTROL, EMBEDDING, no_lora, other_model
from lib_lora.model.layer_names.text import layer_name, text_paths
from lib_lora.model.meta_device import EmulatedDevice, autocast_dtype, device_type, emulating, without_autocast
from lib_lora.model.patching import forwards_replaced
from lib_lora.model.tensor_rules import rarer_problem, rarer_type
from tests.pairs import new_pair

SD1_INPAINTING = inpainting(SD1)
CPU, META = torch.device("cpu"), torch.device("meta")


class BasicTransformerBlock(nn.Module):
    """Bears the name of a block of ldm and diffusers; counts how often it is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.computed = nn.Linear(4, 4), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.computed += 1
        return self.linear(x).tanh()


def test_a_block_is_computed_again_for_its_gradient() -> None:
    block, x = BasicTransformerBlock(), torch.randn(2, 4)
    block(x).sum().backward()
    plain = block.linear.weight.grad.clone()  # type: ignore[union-attr]
    block.zero_grad()
    found = checkpointed_forwards([nn.Sequential(block, nn.Linear(4, 4))])
    assert list(found) == [block]
    with forwards_replaced(found):
        block(x).sum().backward()
    assert block.computed == 3 and torch.equal(block.linear.weight.grad, plain)  # type: ignore[arg-type]


def test_meta_tensors_stand_for_a_device() -> None:
    x = torch.empty(1, device=META)
    with emulating(EmulatedDevice("cuda", torch.float16)):
        assert device_type(x) == "cuda" and autocast_dtype(x) == torch.float16
        with without_autocast(x):
            assert device_type(x) == "cuda" and autocast_dtype(x) is None
        assert device_type(torch.empty(1)) == "cpu"
    assert device_type(x) == "cpu" and autocast_dtype(x) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert autocast_dtype(torch.empty(1)) == torch.bfloat16
        with without_autocast(torch.empty(1)):
            assert autocast_dtype(torch.empty(1)) is None


@pytest.mark.parametrize("module", [nn.Linear(6, 5), nn.Conv2d(6, 5, 3, stride=2, padding=1)], ids=["linear", "conv"])
def test_a_layer_answers_with_all_that_is_added(module: nn.Module) -> None:
    """W x + the deltas of a trained and of a frozen pair, as matrices."""
    target = Target("lora_unet_a", module, "unet")
    trained, frozen = (new_pair(target, 2, alpha, seed, CPU) for alpha, seed in ((1.0, 1), (2.0, 2)))
    for pair in (trained, frozen):
        nn.init.normal_(pair.up)
    x = torch.randn(3, 6) if isinstance(module, nn.Linear) else torch.randn(3, 6, 8, 8)
    weight = module.weight.detach().clone()  # type: ignore[operator, union-attr]
    for pair in (trained, frozen):
        weight += (pair.up.flatten(1) @ pair.down.flatten(1)).view_as(weight).detach() * pair.scale
    bias = module.bias
    if isinstance(module, nn.Linear):
        wanted = nn.functional.linear(x, weight, bias)  # type: ignore[arg-type]
    else:
        wanted = nn.functional.conv2d(x, weight, bias, stride=2, padding=1)  # type: ignore[arg-type]
    assert torch.allclose(composed(trained, frozen, None)(x), wanted, atol=1e-5)
    assert not torch.allclose(composed(trained, None, None)(x), wanted, atol=1e-2)


def test_an_inpainting_model_sees_a_mask_of_ones_and_grey() -> None:
    seen: list[torch.Tensor] = []

    def encode_image(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(pixels)
        mean = torch.full((1, 4, pixels.shape[2] // 8, pixels.shape[3] // 8), 2.0)
        return mean, mean

    base: Any = SimpleNamespace(family=SD1_INPAINTING, device=CPU, encode_image=encode_image)
    noisy = torch.randn(2, 4, 3, 5)
    found = Surroundings(base)
    for _ in range(2):
        read = found.beside(noisy)
    assert read.shape == (2, 9, 3, 5) and torch.equal(read[:, :4], noisy) and bool((read[:, 4] == 1).all())
    assert bool((read[:, 5:] == 2.0 * SD1_INPAINTING.latent_scale).all())
    assert [pixels.shape for pixels in seen] == [(1, 3, 24, 40)] and not seen[0].any(), "once for each size, of grey"
    base.family = SD1
    assert Surroundings(base).beside(noisy) is noisy


def test_alphas_of_the_metadata() -> None:
    name = "unet.mid_block.attentions.0.proj_in"
    down = f"{name}.lora_A.weight"
    keys: Any = {down: (key_of(down), (4, 8))}
    names: Any = {down: [SimpleNamespace(name="x")]}
    said = {"unet.lora_alpha": 8, "unet.alpha_pattern": {}, "unet.use_rslora": False}
    told = lambda **more: {"lora_adapter_metadata": json.dumps({**said, **more})}  # noqa: E731
    assert said_alphas(told(), keys, names) == {"x": 8.0}
    assert said_alphas(told(**{"unet.use_rslora": True}), keys, names) == {"x": 16.0}, "8 / √4, as alpha / rank"
    assert said_alphas(told(**{"unet.alpha_pattern": {"proj_in": 2}}), keys, names) == {"x": 2.0}
    assert said_alphas({}, keys, names) == {} == said_scales(told(), keys, names)
    with pytest.raises(LoraFileError, match="a pattern"):
        said_alphas(told(**{"unet.alpha_pattern": {"proj_(in|out)": 2}}), keys, names)


def test_families_by_widths_and_places() -> None:
    reads = "mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    by_width = {768: (SD1,), 1024: (SD2,), 2048: (SDXL,)}
    for width, wanted in by_width.items():
        assert families_of([Layer(UNET, reads, {"lora_down.weight": (4, width)})]) == wanted
    deep = reads.replace("blocks_0_attn2", "blocks_1_attn2")
    assert families_of([Layer(UNET, deep, {})]) == (SDXL,), "a second transformer"
    assert by_metadata({"ss_base_model_version": "sd_v2"}) == (SD2,) and len(by_metadata({})) == 3
    assert narrowed((SD1, SD2), [(SDXL,), (SD2, SDXL)]) == (SD2,)


def test_files_that_hold_no_lora_are_named() -> None:
    assert other_model(["lora_unet_single_transformer_blocks_0.lora_down.weight"]).startswith("FLUX")
    assert other_model(["lora_te3_encoder.alpha"]) == "SD3" and other_model(["control_model.a"]) == CONTROL
    assert other_model(["lora_unet_down_blocks_0_attentions_0_proj_in.alpha"]) == ""
    assert no_lora(["model.diffusion_model.out.0.weight"]) == CHECKPOINT and no_lora(["emb_params"]) == EMBEDDING
    assert no_lora([]) == "" == no_lora(["model.diffusion_model.out.0.weight", "model.diffusion_model.out.lora_up.weight"])


def test_names_of_text_encoders() -> None:
    assert layer_name("lora_te", 3, "mlp.fc1") == "lora_te_text_model_encoder_layers_3_mlp_fc1"
    assert text_paths("transformer_resblocks_3_mlp_c_fc") == ("text_model_encoder_layers_3_mlp_fc1",)
    start = "text_model_encoder_layers_3_self_attn_"
    assert text_paths("resblocks_3_attn_in_proj") == (f"{start}q_proj", f"{start}k_proj", f"{start}v_proj")
    assert text_paths("encoder_layers_3_self_attn_to_out") == (f"{start}out_proj",) and text_paths("layers_3_mlp_fc1") == ()


def test_types_that_are_not_trained_are_named() -> None:
    lora = {"lora_down.weight": torch.zeros(2, 4), "lora_up.weight": torch.zeros(4, 2)}
    assert rarer_type("lora_unet_a", lora) == "" and rarer_problem("a", {"lora_unet_a": lora}) is None
    assert "BOFT" in rarer_type("lora_unet_a", {"oft_blocks": torch.zeros(1, 2, 2, 2)})
    tucker = {**lora, "lora_mid.weight": torch.zeros(2, 2, 3, 3)}
    told = rarer_problem("a", {"lora_unet_a": tucker, "lora_unet_b": {"x": torch.zeros(1)}, "lora_unet_c": lora})
    assert told is not None and told.startswith("'a' has 2 layers") and "LoCon" in told
