"""Our files in other programs: diffusers with peft, and sd-scripts' own tools."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from lib_lora.files.lora_file import serialise, write
from lib_lora.hosts.standalone import DiffusersModel, StandaloneHost
from lib_lora.model.adapter import attached, state_dict
from lib_lora.model.conditioning import Conditioning
from tests.pairs import new_pair


@pytest.fixture
def trained(mini_checkpoint: Path, tmp_path: Path) -> tuple[DiffusersModel, Path, dict[str, torch.Tensor]]:
    """A model, a LoRA file of nonzero pairs, and the outputs with these pairs attached."""
    host = StandaloneHost(mini_checkpoint, tmp_path)
    with host.borrow_model() as base, torch.no_grad():
        pairs = [new_pair(target, 3, 2.0, 5, base.device) for target in base.targets()]
        for number, pair in enumerate(pairs):
            nn.init.normal_(pair.up, std=0.05, generator=torch.Generator().manual_seed(number))
        with attached(pairs):
            outputs = outputs_of(base)
        path = tmp_path / "ours.safetensors"
        write(path, serialise(state_dict(pairs), torch.float32, {"ss_network_module": "networks.lora"}))
        return base, path, outputs


@torch.no_grad()
def outputs_of(base: DiffusersModel) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 49000, (1, 77), generator=generator)
    latents = torch.randn(1, 4, 16, 16, generator=generator)
    context = torch.randn(1, 77, 64, generator=generator)
    return {
        "text": base.text_encoders[0].module(ids).last_hidden_state,
        "unet": base.predict(latents, torch.tensor([400]), Conditioning(context)),
    }


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.case(70)
def test_diffusers_gives_what_our_adapters_gave(trained: tuple[DiffusersModel, Path, dict[str, torch.Tensor]]) -> None:
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    base, path, ours = trained
    plain = outputs_of(base)
    pipeline = StableDiffusionPipeline(
        vae=base.vae, text_encoder=base.text_encoders[0].module, tokenizer=base.tokenizer, unet=base.unet,
        scheduler=DDIMScheduler(), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
    theirs = outputs_of(base)
    for part in ("unet", "text"):
        assert relative(ours[part], plain[part]) > 1e-2, "the LoRA must matter for this test to mean something"
        assert relative(theirs[part], ours[part]) < 1e-4, part


def test_diffusers_gives_what_our_adapters_gave_on_sdxl(mini_sdxl: Path, tmp_path: Path) -> None:
    """U-Net and both text encoders, through diffusers' own translation of ldm's names."""
    from diffusers import DDIMScheduler, StableDiffusionXLPipeline
    from transformers import CLIPTokenizer

    from lib_lora.data.tokens import VOCABULARY

    with StandaloneHost(mini_sdxl, tmp_path).borrow_model() as base, torch.no_grad():
        pairs = [new_pair(target, 3, 2.0, 5, base.device) for target in base.targets()]
        for number, pair in enumerate(pairs):
            nn.init.normal_(pair.up, std=0.05, generator=torch.Generator().manual_seed(number))
        plain = outputs_of_sdxl(base)
        with attached(pairs):
            ours = outputs_of_sdxl(base)
        path = tmp_path / "ours.safetensors"
        write(path, serialise(state_dict(pairs), torch.float32, {"ss_network_module": "networks.lora"}))
        tokenizer = CLIPTokenizer.from_pretrained(str(VOCABULARY), local_files_only=True)
        one, two = (encoder.module for encoder in base.text_encoders)
        pipeline = StableDiffusionXLPipeline(
            vae=base.vae, text_encoder=one, text_encoder_2=two, tokenizer=tokenizer, tokenizer_2=tokenizer, unet=base.unet,
            scheduler=DDIMScheduler(), add_watermarker=False,
        )  # fmt: skip
        pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
        theirs = outputs_of_sdxl(base)
    for part, output in ours.items():
        assert relative(output, plain[part]) > 1e-2, "the LoRA must matter for this test to mean something"
        assert relative(theirs[part], output) < 1e-4, part


def outputs_of_sdxl(base: DiffusersModel) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(0, 49000, (1, 75), generator=generator)
    ids = torch.cat([torch.tensor([[49406]]), words, torch.tensor([[49407]])], dim=1)
    context, latents = torch.randn(1, 77, 320, generator=generator), torch.randn(1, 4, 16, 16, generator=generator)
    given = Conditioning(context, torch.randn(1, 256, generator=generator), torch.tensor([[128, 128, 0, 0, 128, 128]]))
    first, second = (encoder.read(ids, 1) for encoder in base.text_encoders)
    assert second.pooled is not None
    unet = base.predict(latents, torch.tensor([400]), given)
    return {"unet": unet, "first": first.hidden, "second": second.hidden, "pooled": second.pooled}


@pytest.mark.skipif(not os.environ.get("SD_SCRIPTS_DIR"), reason="SD_SCRIPTS_DIR is not set")
def test_sd_scripts_tools_accept_the_file(trained: tuple[DiffusersModel, Path, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    _, path, _ = trained
    folder, python = Path(os.environ["SD_SCRIPTS_DIR"]), os.environ.get("SD_SCRIPTS_PYTHON") or "python"
    checked = run(python, folder / "networks" / "check_lora_weights.py", path, cwd=folder)
    assert f"number of LoRA modules: {2 * len(path_names(path))}" in checked
    resized = tmp_path / "resized.safetensors"
    run(python, folder / "networks" / "resize_lora.py", "--model", path, "--save_to", resized, "--new_rank", 2, "--device", "cpu",
        "--save_precision", "float", cwd=folder)  # fmt: skip
    assert resized.is_file()


def path_names(path: Path) -> set[str]:
    from lib_lora.files.lora_file import read

    return {key.partition(".")[0] for key in read(path)[0]}


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(cwd)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
