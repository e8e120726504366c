import pytest
import torch
from diffusers import DDPMScheduler

from timeloom.errors import TimeloomError
from timeloom.generate.schedulers import SCHEDULERS, make_scheduler, scheduler_name, step_arguments

TRAINING = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, prediction_type="v_prediction").config


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_training_schedule_is_the_models(name):
    scheduler = make_scheduler(name, TRAINING)
    assert scheduler_name(scheduler) == name
    assert torch.equal(scheduler.betas, DDPMScheduler.from_config(TRAINING).betas)
    assert scheduler.config.prediction_type == "v_prediction"


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_perfect_denoiser_leads_to_the_clean_latents(name):
    """With the true noise predicted at every step, every sampler must end at the latents below the noise."""
    scheduler = make_scheduler(name, {**TRAINING, "prediction_type": "epsilon"})
    clean = torch.randn((2, 3, 4, 5, 5), generator=torch.Generator().manual_seed(0))
    scheduler.set_timesteps(20)
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    latents = torch.stack([torch.randn(clean.shape[1:], generator=generator) for generator in generators])
    for timestep in scheduler.timesteps:
        alpha = scheduler.alphas_cumprod[int(timestep)]
        noise = (latents - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        latents = scheduler.step(noise, timestep, latents, **step_arguments(scheduler, generators)).prev_sample
    assert (latents - clean).abs().max() < 0.05


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_perfect_denoiser_finds_the_latents_from_pure_noise(name):
    """With no signal at the last step and the true velocity predicted, every sampler still ends at the latents."""
    training = DDPMScheduler(
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )
    scheduler = make_scheduler(name, training.config)
    scheduler.set_timesteps(20)
    assert int(scheduler.timesteps[0]) == 999
    clean = torch.randn((2, 3, 4, 5, 5), generator=torch.Generator().manual_seed(0))
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    latents = torch.stack([torch.randn(clean.shape[1:], generator=generator) for generator in generators])
    for timestep in scheduler.timesteps:
        alpha = training.alphas_cumprod[int(timestep)]
        velocity = (alpha.sqrt() * latents - clean) / (1 - alpha).sqrt()
        latents = scheduler.step(velocity, timestep, latents, **step_arguments(scheduler, generators)).prev_sample
    assert (latents - clean).abs().max() < 0.05


def test_an_unknown_sampler_gets_the_nearest_name():
    with pytest.raises(TimeloomError, match=r"Unknown sampler 'unpic'.*'unipc'"):
        make_scheduler("unpic", {})
