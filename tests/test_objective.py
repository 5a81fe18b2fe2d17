"""Schedule, noising and weights: against diffusers, and against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch

from lib_lora.config.groups import ObjectiveConfig
from lib_lora.objective.loss import min_snr_weight, sample_weights, squared_error
from lib_lora.objective.noise import add_noise, draw_timesteps, scaled_linear_alphas_cumprod, snr
from lib_lora.randomness import generator, normal, permutation


def scheduler() -> object:
    diffusers = pytest.importorskip("diffusers")
    return diffusers.DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)


def test_schedule_equals_diffusers() -> None:
    assert torch.equal(scaled_linear_alphas_cumprod(), scheduler().alphas_cumprod)
    assert float(scaled_linear_alphas_cumprod()[-1]) == pytest.approx(0.0046601, rel=1e-4)


def test_noising_equals_diffusers() -> None:
    latents, noise = torch.randn(5, 4, 6, 7), torch.randn(5, 4, 6, 7)
    timesteps = torch.tensor([0, 1, 500, 998, 999])
    ours = add_noise(latents, noise, timesteps, scaled_linear_alphas_cumprod())
    assert torch.allclose(ours, scheduler().add_noise(latents, noise, timesteps), atol=1e-6)


def test_timesteps_cover_the_range_evenly() -> None:
    drawn = draw_timesteps(20000, generator(1))
    assert drawn.min() == 0 and drawn.max() == 999 and abs(float(drawn.float().mean()) - 499.5) < 8


def test_squared_error_by_hand() -> None:
    pred = torch.tensor([[[[1.0, 2.0]]], [[[0.0, 3.0]]]])
    target = torch.tensor([[[[0.0, 0.0]]], [[[1.0, 1.0]]]])
    assert squared_error(pred, target).tolist() == [2.5, 2.5]


def test_min_snr_by_hand() -> None:
    alphas = torch.tensor([0.9, 0.5, 0.1])  # SNR 9, 1, 1/9
    timesteps = torch.tensor([0, 1, 2])
    assert snr(timesteps, alphas).tolist() == pytest.approx([9.0, 1.0, 1 / 9])
    assert min_snr_weight(timesteps, alphas, 5.0).tolist() == pytest.approx([5 / 9, 1.0, 1.0])


def test_weights_are_one_unless_asked_for() -> None:
    alphas, timesteps = torch.tensor([0.9, 0.5]), torch.tensor([0, 1])
    assert sample_weights(ObjectiveConfig(), timesteps, alphas).tolist() == [1.0, 1.0]
    assert sample_weights(ObjectiveConfig(min_snr_gamma=3.0), timesteps, alphas).tolist() == pytest.approx([1 / 3, 1.0])


def test_randomness_is_a_function_of_its_labels() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert torch.equal(normal((3,), 1, "noise", 2), normal((3,), 1, "noise", 2))
    for other in (normal((3,), 2, "noise", 2), normal((3,), 1, "noise", 3), normal((3,), 1, "init", 2)):
        assert not torch.equal(normal((3,), 1, "noise", 2), other)
    assert sorted(permutation(20, 1, "x")) == list(range(20)) != permutation(20, 1, "x")
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_is_normal() -> None:
    drawn = normal((100, 1000), 7, "noise")
    assert abs(float(drawn.mean())) < 0.02 and abs(float(drawn.std()) - 1) < 0.02
