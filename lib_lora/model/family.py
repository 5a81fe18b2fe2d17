"""The families of Stable Diffusion that can be trained: what tells them apart, for files, names and numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Family:
    """One family.

    `text_prefixes`: what a LoRA file calls the text encoders, in the order in which their outputs are joined.
    `latent_scale`: factor on the VAE's latents (ldm scale_factor).
    `base_versions`, `architectures`: ss_base_model_version and modelspec.architecture (without its ending) of a model that
    predicts noise, and of one that predicts v.
    `card`: the webui's own word for the family, in a LoRA's card.
    `clip_skip`: whether the text encoder may be left early; SDXL has its own layers for that.
    `text_encoder_lr`: the text encoders' learning rate where none is given.
    `inpaints`: the U-Net reads a mask and the latents of what the mask leaves, beside the noisy ones.
    """

    name: str
    text_prefixes: tuple[str, ...]
    latent_scale: float
    base_versions: tuple[str, str]
    architectures: tuple[str, str]
    implementation: str
    card: str
    is_v2: bool = False
    clip_skip: bool = True
    text_encoder_lr: float = 5e-5
    inpaints: bool = False

    def base_version(self, *, velocity: bool) -> str:
        """The value of ss_base_model_version."""
        return self.base_versions[velocity]

    def architecture(self, *, velocity: bool) -> str:
        """The value of modelspec.architecture of a LoRA."""
        return f"{self.architectures[velocity]}/lora"


SD1 = Family(
    name="SD 1.x",
    text_prefixes=("lora_te",),
    latent_scale=0.18215,
    base_versions=("sd_v1", "sd_v1_v"),
    architectures=("stable-diffusion-v1", "stable-diffusion-v1"),
    implementation="diffusers",
    card="SD1",
)
SD2 = Family(
    name="SD 2.x",
    text_prefixes=("lora_te",),
    latent_scale=0.18215,
    base_versions=("sd_v2", "sd_v2_v"),
    architectures=("stable-diffusion-v2-512", "stable-diffusion-v2-768-v"),
    implementation="diffusers",
    card="SD2",
    is_v2=True,
)
SDXL = Family(
    name="SDXL",
    text_prefixes=("lora_te1", "lora_te2"),
    latent_scale=0.13025,
    base_versions=("sdxl_base_v1-0", "sdxl_base_v1-0"),
    architectures=("stable-diffusion-xl-v1-base", "stable-diffusion-xl-v1-base"),
    implementation="https://github.com/Stability-AI/generative-models",
    card="SDXL",
    clip_skip=False,
    text_encoder_lr=0.0,
)


@dataclass(frozen=True)
class Kind:
    """What a model is, and where that was read.

    `read_from`: what says the family, in words.
    `v_from`: what says that the model predicts v, in words; empty where nothing does.
    """

    family: Family
    read_from: str
    v_from: str = ""

    def words(self, *, declared: bool) -> str:
        """For a person, before a run begins. `declared`: the settings say that the model predicts v."""
        predicts = "noise (nothing says v)"
        if self.v_from or declared:
            predicts = f"v ({self.v_from or 'declared by hand'})"
        return f"{self.family.name}, predicts {predicts}; read from {self.read_from}"


def inpainting(family: Family) -> Family:
    """The same family with a U-Net that fills in what a mask leaves out; its LoRAs are those of the family."""
    return replace(family, name=f"{family.name} inpainting", inpaints=True)
