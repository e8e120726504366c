import pytest
import torch

from timeloom.train.diffusion import DiffusionTask, min_snr_weights, seen_as_images, shift_timesteps
from timeloom.train.engine import Trainer
from timeloom.train.feed import read_batch
from timeloom.train.task import SampleRandom
from timeloom.train.tasks import build_task

CPU = torch.device("cpu")
ALPHAS = torch.tensor([0.9999, 0.95, 0.5, 0.1, 0.01])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 1 / 3, 0.5, 0.9])
def test_images_are_spread_evenly(share):
    chosen = [seen_as_images(number, share) for number in range(1000)]
    for first in range(0, 900, 7):
        for length in (1, 4, 10, 90):
            assert abs(sum(chosen[first : first + length]) - share * length) <= 1


def test_the_two_predictions_weigh_the_clean_latents_alike():
    """An error e in the clean latents is e·√SNR in the noise and e·√(SNR + 1) in the velocity."""
    snr = ALPHAS / (1 - ALPHAS)
    by_noise = min_snr_weights(ALPHAS, 5.0, velocity=False) * snr
    by_velocity = min_snr_weights(ALPHAS, 5.0, velocity=True) * (snr + 1)
    torch.testing.assert_close(by_noise, snr.clamp(max=5.0))
    torch.testing.assert_close(by_velocity, snr.clamp(max=5.0))


def test_without_a_signal_the_velocity_weighs_nothing():
    assert min_snr_weights(torch.zeros(1), 5.0, velocity=True).item() == 0.0


def test_a_shift_of_one_leaves_timesteps_as_they_are():
    timesteps = torch.arange(1000)
    assert torch.equal(shift_timesteps(timesteps, 1000, 1.0), timesteps)


@pytest.mark.parametrize("shift", [0.5, 2.0, 3.0])
def test_shifted_timesteps_are_as_frequent_as_the_formula_says(shift):
    """u = x / (shift − (shift − 1) x) is the inverse, and so the share of timesteps below x."""
    shifted = shift_timesteps(torch.arange(100_000), 100_000, shift) / 100_000
    assert shifted.min() >= 0 and shifted.max() < 1
    for x in (0.1, 0.5, 0.9):
        assert (shifted < x).float().mean().item() == pytest.approx(x / (shift - (shift - 1) * x), abs=1e-3)


def task_and_loss(recipe, batch_of=4, **changes):
    """The task of a recipe with changed options, and the loss of its first samples."""
    recipe = recipe.model_copy(update=changes)
    task = build_task(recipe, CPU)
    from timeloom.data.sources import open_sources

    source, _ = open_sources(recipe.data, recipe.seed)
    numbers = list(range(batch_of))
    batch = read_batch(source, numbers, recipe.data.window, [0.5] * batch_of)
    return task, batch, numbers


def test_samples_do_not_depend_on_their_batch(tiny_recipe, trained_runs):
    """The loss of four clips is the mean of the four losses, images among them or not."""
    task, batch, numbers = task_and_loss(tiny_recipe("video", trained_runs))
    with torch.no_grad():
        whole, metrics = task.loss(batch, SampleRandom(0, numbers))
        alone = [task.loss(batch.part(n, n + 1), SampleRandom(0, [n]))[0] for n in numbers]
    assert {"video", "image", "share/images"} == set(metrics)
    torch.testing.assert_close(whole, torch.stack(alone).mean())


def test_a_network_that_knows_the_velocity_has_no_loss(tiny_recipe, trained_runs, monkeypatch):
    """x = √ᾱ·latents + √(1−ᾱ)·noise and v = √ᾱ·noise − √(1−ᾱ)·latents, so latents = √ᾱ·x − √(1−ᾱ)·v."""
    recipe = tiny_recipe("image", trained_runs)
    schedule = recipe.model.noise_schedule.model_copy(
        update={"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    )
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"noise_schedule": schedule})})
    task, batch, numbers = task_and_loss(recipe)
    assert isinstance(task, DiffusionTask) and task.schedule.alphas_cumprod[-1] == 0
    latents = task.encoder.latents(batch)
    asked = []

    def knows(noisy, timesteps, encoder_hidden_states):
        asked.append(timesteps)
        alpha = task.schedule.alphas_cumprod[timesteps].view(-1, 1, 1, 1, 1).double()
        sigma = (1 - alpha).sqrt()
        velocity = (alpha.sqrt() * noisy - latents) / sigma  # from the two equations above
        return type("Output", (), {"sample": velocity.float()})

    task.network = knows
    loss, _ = task.loss(batch, SampleRandom(0, numbers))
    assert loss < 1e-6 and len(asked) == 1


def test_offset_noise_is_one_number_for_each_channel(tiny_recipe, trained_runs):
    """What the network sees with and without it differs by √(1−ᾱ) times one number a channel and clip."""
    seen = []
    for offset in (0.0, 0.5):
        recipe = tiny_recipe("video", trained_runs)
        recipe = recipe.model_copy(
            update={"loss": recipe.loss.model_copy(update={"offset_noise": offset, "image_share": 0.0})}
        )
        task, batch, numbers = task_and_loss(recipe)
        network = task.network

        def spy(noisy, timesteps, network=network, task=task, **text):
            sigma = (1 - task.schedule.alphas_cumprod[timesteps]).sqrt().view(-1, 1, 1, 1, 1)
            seen.append(noisy / sigma)
            return network(noisy, timesteps, **text)

        task.network = spy
        with torch.no_grad():
            task.loss(batch, SampleRandom(0, numbers))
    added = seen[1] - seen[0]  # (B, F, C, h, w)
    one_number = added[:, :1, :, :1, :1]
    torch.testing.assert_close(added, one_number.expand_as(added), rtol=0, atol=1e-3)
    assert one_number.std() > 0.1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_model_stored_in_half_precision_trains(precision, tiny_recipe, tmp_path):
    """digits-shift is stored in fp16; a text encoder left in it meets networks in fp32."""
    recipe = tiny_recipe("video", tmp_path, total_samples=4)
    folders = dict.fromkeys(("text_encoder", "vae", "unet"), "digits-shift")
    model = recipe.model.model_copy(update=folders)
    recipe = recipe.model_copy(update={"model": model, "precision": precision})
    Trainer(recipe, build_task(recipe, CPU), CPU).run()
    assert (tmp_path / "video/model/model_index.json").is_file()
