import logging

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from timeloom.errors import TimeloomError
from timeloom.generate.pipeline import NonFiniteError, TextToVideoPipeline
from timeloom.generate.schedulers import SCHEDULERS, make_scheduler

PROMPTS = ["red seven", "blue two", "green six"]


def test_saved_and_loaded_it_makes_the_same_clip(pipe, tmp_path):
    pipe.scheduler = make_scheduler("unipc", pipe.scheduler.config)
    before = pipe(PROMPTS[0]).frames
    pipe.save_pretrained(tmp_path / "again")
    loaded = TextToVideoPipeline.from_pretrained(tmp_path / "again")
    loaded.set_progress_bar_config(disable=True)
    assert np.array_equal(loaded(PROMPTS[0]).frames, before)
    assert (loaded.config.num_frames, loaded.config.fps, loaded.config.sampler) == (4, 8.0, "unipc")
    assert loaded.unet.config.temporal == "shift"


def test_frames_are_uint8_of_the_size_asked_for(pipe):
    output = pipe(PROMPTS[:2], num_frames=3, height=18, width=10)
    assert output.frames.shape == (2, 3, 18, 10, 3)
    assert output.frames.dtype == np.uint8
    assert output.seeds == [0, 1]
    assert output.fps == 8.0


def test_one_frame_is_an_image(pipe):
    assert pipe(PROMPTS[0], num_frames=1).frames.shape == (1, 1, 16, 16, 3)


@pytest.mark.parametrize("sampler", SCHEDULERS)
def test_a_clip_does_not_depend_on_its_batch_mates(pipe, sampler):
    pipe.scheduler = make_scheduler(sampler, pipe.scheduler.config)
    together = pipe(PROMPTS, seeds=[5, 6, 7], output_type="latent").frames
    alone = pipe(PROMPTS[2], seeds=[7], output_type="latent").frames
    assert torch.allclose(together[2], alone[0], atol=1e-5)
    assert not torch.allclose(together[0], together[2], atol=1e-2)
    pixels = [pipe.decode(latents).astype(int) for latents in (together[2:], alone)]
    assert np.abs(pixels[0] - pixels[1]).max() <= 1


def test_the_seed_decides(pipe):
    first, same, other = (pipe(PROMPTS[0], seeds=[seed]).frames for seed in (3, 3, 4))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_guidance_adds_the_scaled_difference(pipe):
    """One DDIM step is linear in the prediction: guidance s gives negative + s (positive - negative)."""
    run = {"num_inference_steps": 1, "output_type": "latent", "seeds": [0]}
    positive = pipe("red", guidance_scale=1.0, **run).frames
    negative = pipe("blue", guidance_scale=1.0, **run).frames
    guided = pipe("red", negative_prompt="blue", guidance_scale=4.0, **run).frames
    torch.testing.assert_close(guided, negative + 4 * (positive - negative), atol=2e-3, rtol=1e-4)
    assert not torch.allclose(guided, pipe("red", guidance_scale=4.0, **run).frames)


def test_decoding_in_chunks_changes_nothing(pipe):
    latents = pipe(PROMPTS[:2], output_type="latent").frames
    whole, chunked = (pipe.decode(latents, chunk_size).astype(int) for chunk_size in (8, 3))
    assert np.abs(whole - chunked).max() <= 1


def test_decoding_reverses_the_scale_of_the_latents(pipe):
    latents = torch.randn((1, 2, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    pixels = pipe.vae.decode(latents[0] / pipe.vae.config.scaling_factor).sample.detach()
    expected = ((pixels / 2 + 0.5).clamp(0, 1) * 255).permute(0, 2, 3, 1).numpy()
    with torch.no_grad():
        assert np.abs(pipe.decode(latents)[0] - expected).max() < 0.51


def test_the_callback_sees_each_step_and_may_change_the_latents(pipe):
    seen = []

    def callback(pipeline, step, timestep, tensors):
        seen.append((step, int(timestep)))
        return {"latents": torch.zeros_like(tensors["latents"])} if step == 2 else {}

    latents = pipe(PROMPTS[0], callback_on_step_end=callback, output_type="latent").frames
    assert [step for step, _ in seen] == [0, 1, 2]
    assert seen[0][1] > seen[1][1] > seen[2][1]
    assert not latents.any()


def test_given_latents_take_the_place_of_the_noise(pipe):
    noise = torch.randn((4, 4, 8, 8), generator=torch.Generator().manual_seed(9))[None]
    assert np.array_equal(pipe("red", latents=noise).frames, pipe("red", seeds=[9]).frames)


def test_latents_that_are_not_finite_never_become_a_video(pipe):
    def poison(pipeline, step, timestep, tensors):
        return {"latents": tensors["latents"] * float("inf")} if step == 1 else {}

    with pytest.raises(NonFiniteError, match="latents at step 2 of 3"):
        pipe(PROMPTS[0], callback_on_step_end=poison)
    with pytest.raises(NonFiniteError, match="pixels while decoding"):
        pipe.decode(torch.full((1, 1, 4, 8, 8), float("nan")))


def test_a_network_that_overflows_is_caught_at_its_step(pipe):
    with torch.no_grad():
        pipe.unet.conv_out.weight.fill_(float("inf"))
    with pytest.raises(NonFiniteError, match="prediction at step 1 of 3"):
        pipe(PROMPTS[0])


def test_half_precision_computes_in_half_precision(tiny_model):
    pipe = TextToVideoPipeline.from_pretrained(tiny_model, dtype=torch.bfloat16)
    pipe.set_progress_bar_config(disable=True)
    assert {pipe.unet.dtype, pipe.vae.dtype, pipe.text_encoder.dtype} == {torch.bfloat16}
    assert pipe(PROMPTS[0]).frames.dtype == np.uint8


def test_a_prompt_too_long_warns_of_the_words_cut(pipe, caplog):
    with caplog.at_level(logging.WARNING, logger="timeloom"):
        pipe("red seven red seven red seven red six and a blue two")
    assert "'and a blue two'" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": " "}, "prompt is empty"),
        ({"num_frames": 0}, "from 1 .* to 1024, not 0"),
        ({"num_frames": -1}, "not -1"),
        ({"num_frames": 10_000}, "not 10000"),
        ({"height": 17}, "height must be a multiple of 2 pixels, not 17"),
        ({"width": 0}, "width must be a multiple"),
        ({"num_inference_steps": 0}, "steps must be from 1 to 1000"),
        ({"num_inference_steps": 1001}, "steps must be from 1 to 1000"),
        ({"seeds": [1, 2]}, r"1 prompt\(s\) came with 2 seeds"),
        ({"negative_prompt": ["a", "b"]}, "2 negative prompts"),
        ({"output_type": "latents"}, "'latent'"),
        ({"decode_chunk_size": 0}, "At least 1 frame"),
        ({"latents": torch.zeros(1, 2, 4, 8, 8)}, "latents have shape"),
    ],
)
def test_bad_arguments(pipe, arguments, message):
    with pytest.raises(TimeloomError, match=message):
        pipe(**{"prompt": "red", **arguments})


def test_latents_are_never_clipped_like_pixels(pipe, tiny_model):
    clipping = DDPMScheduler.from_config(pipe.scheduler.config, clip_sample=True)
    loaded = TextToVideoPipeline.from_pretrained(tiny_model, scheduler=clipping)
    assert isinstance(loaded.scheduler, DDPMScheduler)
    assert loaded.scheduler.config.clip_sample is False
