"""Tiny runs of every task, one after the other, as a user would train them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from timeloom.train.recipe import Recipe

TINY = {
    "text_encoder": {
        "data": {"num_frames": 4, "fps": 2, "validation_clips": 4},
        "model": {
            "text_encoder": {
                "vocab_size": 600,
                "max_length": 16,
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "video_width": 8,
            }
        },
    },
    "autoencoder": {
        "data": {"num_frames": 1, "validation_clips": 4},
        "model": {
            "vae": {
                "block_out_channels": [8, 8, 8, 8],
                "down_block_types": ["DownEncoderBlock2D"] * 4,
                "up_block_types": ["UpDecoderBlock2D"] * 4,
                "norm_num_groups": 4,
                "latent_channels": 4,
                "sample_size": 64,
            }
        },
    },
    "image": {
        "data": {"num_frames": 1, "validation_clips": 4},
        "model": {
            "vae": "autoencoder/model",
            "text_encoder": "text_encoder/model",
            "unet": {
                "sample_size": 8,
                "block_out_channels": [8, 16],
                "layers_per_block": 1,
                "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
                "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
                "cross_attention_dim": 16,
                "attention_head_dim": 2,
                "norm_num_groups": 4,
            },
        },
    },
    "video": {
        "data": {"num_frames": 4, "fps": 2, "validation_clips": 4},
        "model": {"vae": "image/model", "text_encoder": "image/model", "unet": "image/model", "temporal": "shift"},
        "loss": {"image_share": 0.25},
    },
    "features": {
        "data": {"num_frames": 4, "fps": 2, "validation_clips": 4},
        "model": {"text_encoder": "text_encoder/model", "features": {"width": 8, "dimension": 16, "embedding": 8}},
        "loss": {"image_share": 0.25},
    },
}


def _tiny_recipe(task: str, runs: Path, output: Path | None = None, **schedule: int) -> Recipe:
    """A recipe of a few steps; parts come from the earlier stages' folders below `runs`."""
    options = TINY[task]
    model = {k: str(runs / v) if isinstance(v, str) and "/" in v else v for k, v in options["model"].items()}
    return Recipe.model_validate(
        {
            **options,
            "task": task,
            "output": str(output or runs / task),
            "model": model,
            "optimizer": {"learning_rate": 1e-3, "warmup_samples": 8},
            "schedule": {
                "total_samples": 16,
                "batch_size": 4,
                "log_every": 4,
                "validate_every": 8,
                "checkpoint_every": 4,
                **schedule,
            },
            "ema_half_life_samples": 8,
            "precision": "fp32",
            "preview": {"num_inference_steps": 2, "prompts": ["a red seven moves left"]},
        }
    )


@pytest.fixture(scope="session")
def tiny_recipe() -> Callable[..., Recipe]:
    """tiny_recipe(task, runs, output=None, **schedule)"""
    return _tiny_recipe


@pytest.fixture(scope="session")
def trained_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all stages have been trained for four steps."""
    import torch

    from timeloom.train.engine import Trainer
    from timeloom.train.tasks import build_task

    runs = tmp_path_factory.mktemp("runs")
    for task in TINY:
        recipe = _tiny_recipe(task, runs)
        Trainer(recipe, build_task(recipe, torch.device("cpu")), torch.device("cpu")).run()
    return runs


@pytest.fixture(scope="session")
def stop_after() -> Callable[[int, Recipe], None]:
    """stop_after(samples, recipe): a training that an error ends there, between two checkpoints or at one."""
    import torch

    from timeloom.train.engine import Trainer
    from timeloom.train.tasks import build_task

    class Stop(Exception):
        pass

    def train_and_stop(samples: int, recipe: Recipe) -> None:
        trainer = Trainer(recipe, build_task(recipe, torch.device("cpu")), torch.device("cpu"))
        step = trainer._step

        def step_or_stop(numbers, batch):
            if numbers[0] >= samples:
                raise Stop
            return step(numbers, batch)

        trainer._step = step_or_stop
        with pytest.raises(Stop):
            trainer.run()

    return train_and_stop
