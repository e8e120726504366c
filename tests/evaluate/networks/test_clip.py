"""CLIP on a tiny network of its kind, against transformers' own processor."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from timeloom.errors import TimeloomError
from timeloom.evaluate.networks import clip
from timeloom.evaluate.networks.clip import load_clip

TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}

PT = {"format": "pt"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip")
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={token: index for index, token in enumerate(tokens)}, merges=[]).save_pretrained(path)
    text = {**TINY, "vocab_size": len(tokens), "eos_token_id": len(tokens) - 1, "bos_token_id": len(tokens) - 2}
    vision = {**TINY, "patch_size": 32, "image_size": 224}
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=512)).save_pretrained(path)
    return path


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(clip, "SHAPE", {**clip.SHAPE, "hidden_size": 32, "num_hidden_layers": 2})


def test_frames_are_prepared_as_transformers_does(folder, tiny):
    extractor = load_clip(folder)
    processor = CLIPImageProcessorPil()
    rng = np.random.default_rng(0)
    for height, width in ((100, 161), (300, 280), (64, 64)):
        coarse = rng.integers(0, 256, (2, height // 4, width // 4, 3), dtype=np.uint8)
        frames = np.ascontiguousarray(coarse.repeat(4, 1).repeat(4, 2))
        expected = processor(list(frames), return_tensors="pt").pixel_values
        found = extractor._prepare(torch.from_numpy(frames))
        assert (found - expected).abs().max() < 0.031  # two levels of 255: Pillow rounds between its two passes
        assert (found - expected).abs().mean() < 0.001


def test_features_are_those_of_the_library(folder, tiny):
    extractor = load_clip(folder)
    model = CLIPModel.from_pretrained(folder)
    clips = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 40, 3), dtype=np.uint8)
    rows = extractor.features(clips)
    assert rows.shape == (6, 512)
    with torch.inference_mode():
        pixels = extractor._prepare(torch.from_numpy(clips.reshape(6, 32, 40, 3)))
        expected = model.get_image_features(pixel_values=pixels)
    np.testing.assert_allclose(rows, getattr(expected, "pooler_output", expected), rtol=1e-3, atol=1e-5)
    texts = ["a red seven moves left", "b", "a very long text " * 40]
    extractor.batch_size = 2
    found = extractor.text_features(texts)
    assert found.shape == (3, 512)
    for text, row in zip(texts, found, strict=True):
        tokens = extractor.tokenizer([text], truncation=True, max_length=77, return_tensors="pt")
        with torch.inference_mode():
            alone = model.get_text_features(**tokens)
        np.testing.assert_allclose(row, getattr(alone, "pooler_output", alone)[0], rtol=1e-3, atol=1e-5)
    with pytest.raises(TimeloomError, match="at least one text"):
        extractor.text_features([])


def test_another_clip_is_named(folder):
    with pytest.raises(TimeloomError, match=r"is no CLIP ViT-B/32.*hidden_size 32"):
        load_clip(folder)


def test_tensors_that_miss_or_are_broken_are_named(folder, tiny, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = {name: value.clone() for name, value in load_file(tmp_path / "model.safetensors").items()}
    broken = {**tensors, "text_projection.weight": torch.full((512, 32), torch.nan)}
    save_file(broken, tmp_path / "model.safetensors", PT)
    with pytest.raises(TimeloomError, match=r"texts features that are not finite.*model\.safetensors"):
        load_clip(tmp_path).text_features(["a"])
    del tensors["visual_projection.weight"]
    save_file(tensors, tmp_path / "model.safetensors", PT)
    with pytest.raises(TimeloomError, match=r"1 tensors are missing.*visual_projection\.weight"):
        load_clip(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(TimeloomError, match=r"not the published pytorch_model\.bin .605\.2 MB, sha256 a6308213"):
        load_clip(tmp_path)


def test_without_weights_the_error_says_all(nowhere, folder, tiny, monkeypatch):
    with pytest.raises(TimeloomError, match=r"openai/clip-vit-base-patch32, with pytorch_model\.bin .605\.2 MB.*hub"):
        load_clip()
    monkeypatch.setenv("TIMELOOM_WEIGHTS", str(nowhere))
    nowhere.mkdir()
    (nowhere / "clip-vit-base-patch32").symlink_to(folder)
    assert load_clip().source.path.name == "model.safetensors"
    with pytest.raises(TimeloomError, match=r"Looked for in .*typo"):
        load_clip(nowhere / "typo")
