"""What every test shares: no network, and the folder of real clips where it is at hand."""

import os
from pathlib import Path

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub, which reads it once

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def project() -> Path:
    """The root of the checkout."""
    return PROJECT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder `../shared/data` with real clips, captions and prompts; skips the test where there is none."""
    folder = PROJECT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the real clips in {folder}, which are not part of the repository")
    return folder


@pytest.fixture(autouse=True)
def _numbers_near_zero():
    """What inductor compiles is linked so that loading it turns numbers near zero into zero in the whole process."""
    yield
    torch.set_flush_denormal(False)
