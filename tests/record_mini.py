"""Record a short run on the miniature checkpoint, made without this project's trainer: diffusers, peft and a plain loop.

    python -m tests.record_mini OUT.safetensors

The recording has the format of the recorded sd-scripts runs, so that it can be replayed on any host.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch
from diffusers import DDPMScheduler
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import save_file

from lib_lora.data.tokens import load_tokenizer
from lib_lora.hosts.checkpoint import Modules, load_modules
from tests.synthetic import write_mini

CONFIG = {
    "network_dim": 2, "network_alpha": 1, "max_train_steps": 3, "unet_lr": 1e-3, "text_encoder_lr": 5e-4, "lr_scheduler": "cosine",
    "train_batch_size": 2, "clip_skip": 2, "mixed_precision": "no", "network_module": "networks.lora", "min_snr_gamma": 5,
}  # fmt: skip
CAPTIONS = [["a cat, closeup", "a cup of coffee"], ["", "a cat"], ["a (rocket:1.2)", "a retina scan, x"]]
UNET_LAYERS = r".*attentions.*\.(to_q|to_k|to_v|to_out\.0|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2)"
TEXT_LAYERS = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


def main(out: Path) -> None:
    """Train three steps and write the recording."""
    with tempfile.TemporaryDirectory() as folder:
        modules = load_modules(write_mini(Path(folder)), torch.float32)
    for module, layers in ((modules.unet, UNET_LAYERS), (modules.text_encoders[0], TEXT_LAYERS)):
        module.requires_grad_(False)
        inject_adapter_in_model(LoraConfig(r=2, lora_alpha=1, target_modules=layers), module)
    pairs = {**_pairs(modules.text_encoders[0], "lora_te_text_model_"), **_pairs(modules.unet, "lora_unet_")}
    generator = torch.Generator().manual_seed(7)
    for name, weight in sorted(pairs.items()):
        with torch.no_grad():
            weight.copy_(
                torch.randn(weight.shape, generator=generator) * (0.02 if "lora_up" in name else weight[0].numel() ** -0.5)
            )
    tensors = {f"init/{name}": weight.detach().clone() for name, weight in pairs.items()}
    tensors.update({f"init/{name.partition('.')[0]}.alpha": torch.tensor(1.0) for name in pairs})
    losses = _train(modules, pairs, tensors, generator)
    tensors.update({f"delta/{name}": (weight.detach() - tensors[f"init/{name}"]).half() for name, weight in pairs.items()})
    metadata = {"config": json.dumps(CONFIG), "captions": json.dumps(CAPTIONS), "losses": json.dumps(losses), "sdxl": "false"}
    save_file(tensors, out, metadata)
    print(losses)


def _train(
    modules: Modules, pairs: dict[str, torch.Tensor], tensors: dict[str, torch.Tensor], generator: torch.Generator
) -> list[float]:
    schedule = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    text = [weight for name, weight in pairs.items() if name.startswith("lora_te")]
    unet = [weight for name, weight in pairs.items() if name.startswith("lora_unet")]
    optimizer = torch.optim.AdamW([{"params": text, "lr": 5e-4}, {"params": unet, "lr": 1e-3}])
    rates = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + torch.cos(torch.tensor(step / 3 * torch.pi)).item())
    )
    losses = []
    for step, captions in enumerate(CAPTIONS):
        latents = torch.randn(2, 4, 8, 16, generator=generator)
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = torch.randint(0, 1000, (2,), generator=generator)
        noisy = schedule.add_noise(latents, noise, timesteps)
        predicted = modules.unet(noisy, timesteps, _context(modules, captions)).sample
        alphas = schedule.alphas_cumprod[timesteps]
        ratio = alphas / (1 - alphas)
        loss = ((predicted - noise).pow(2).mean([1, 2, 3]) * torch.minimum(ratio, torch.tensor(5.0)) / ratio).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(text + unet, 1.0)
        optimizer.step()
        rates.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
        names = {"latents": latents, "noise": noise, "noisy_latents": noisy, "timesteps": timesteps}
        tensors.update({f"step{step}/{name}": value for name, value in names.items()})
    return losses


def _context(modules: Modules, captions: list[str]) -> torch.Tensor:
    ids = load_tokenizer()(captions, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    encoder = modules.text_encoders[0]
    hidden = encoder(ids, output_hidden_states=True).hidden_states[-2]
    return getattr(encoder, "text_model", encoder).final_layer_norm(hidden)


def _pairs(module: torch.nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    """Peft's parameters under kohya's keys."""
    halves = {"lora_A": "lora_down", "lora_B": "lora_up"}
    found = {}
    for name, weight in module.named_parameters():
        if "lora_" in name:
            path, half = name.removesuffix(".default.weight").rsplit(".", 1)
            found[f"{prefix}{path.removeprefix('text_model.').replace('.', '_')}.{halves[half]}.weight"] = weight
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
