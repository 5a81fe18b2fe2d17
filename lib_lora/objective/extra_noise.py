"""Noise that is not white: offset and several resolutions. Random tensors are arguments."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from lib_lora.data.sizes import Size


def with_offset(
    noise: torch.Tensor, latents: torch.Tensor, drawn: torch.Tensor, strength: float, adaptive: float = 0.0
) -> torch.Tensor:
    """ε + max(0, o + k · |mean z|) · n (crosslabs.org "Diffusion with offset noise"; sd-scripts `apply_noise_offset`).

    Args:
        noise: ε.
        latents: z, whose mean over height and width is used if `adaptive` is not 0.
        drawn: n, standard normal, one number per sample and channel.
        strength: o.
        adaptive: k.

    Shapes:
        noise, latents: `[B, 4, h, w]`; drawn: `[B, 4, 1, 1]` -> `[B, 4, h, w]`
    """
    factor: torch.Tensor | float = strength
    if adaptive:
        factor = (strength + adaptive * latents.mean(dim=(2, 3), keepdim=True).abs()).clamp(min=0.0)
    return noise + factor * drawn


def multires_sizes(size: Size, uniforms: Sequence[float]) -> list[Size]:
    """Sizes of the layers that are added to noise of `size` (in latents): layer i is r^i times smaller, r = 2 + 2 u_i.

    The last is the first one that is one latent high or wide.
    """
    sizes = []
    for i, u in enumerate(uniforms):
        shrink = (2 + 2 * u) ** i
        sizes.append(Size(max(1, int(size.height / shrink)), max(1, int(size.width / shrink))))
        if min(sizes[-1]) == 1:
            break
    return sizes


def with_resolutions(noise: torch.Tensor, layers: Sequence[torch.Tensor], discount: float) -> torch.Tensor:
    """(ε + Σ d^i · upsampled n_i) / std, over the batch (Whitaker, "Multi-Resolution Noise"; sd-scripts `pyramid_noise_like`).

    Shapes:
        noise: `[B, 4, h, w]`; layers: `[B, 4, h_i, w_i]`, standard normal -> `[B, 4, h, w]`
    """
    for i, layer in enumerate(layers):
        noise = noise + F.interpolate(layer, size=noise.shape[2:], mode="bilinear") * discount**i
    return noise / noise.std()
