"""Captions come from the right picture, whatever the order of the work, and from models of every family."""

import io
import random
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    GPT2Config,
    PreTrainedTokenizerFast,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessor,
)

from timeloom.curate import captions
from timeloom.curate.captions import Captioner, SimilarityJudge, find_model
from timeloom.curate.pipeline import Layout, curate
from timeloom.curate.recipe import CaptionOptions, load
from timeloom.curate.stages import Job
from timeloom.curate.store import Store
from timeloom.errors import TimeloomError

WORDS = ["<pad>", "<s>", "</s>", "<unk>", "<image>", *(f"w{number}" for number in range(59))]
VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
IMAGE = {"image_size": 32, "patch_size": 8}
SIZE = {"height": 32, "width": 32}


def tokenizer():
    vocabulary = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>"))
    vocabulary.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=vocabulary, **names, additional_special_tokens=["<image>"])


def save(model, processor, folder):
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():  # large enough that pictures matter
        if "norm" not in name.lower() and "ln_" not in name:
            parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(folder)
    for part in processor if isinstance(processor, tuple) else (processor,):
        part.save_pretrained(folder)
    return folder


def blip_2(folder):
    opt = {"model_type": "opt", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 32}
    opt |= {"vocab_size": 64, "word_embed_proj_dim": 16, "max_position_embeddings": 64}
    opt |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = Blip2Config(
        vision_config={**VISION, **IMAGE},
        qformer_config={**VISION, "encoder_hidden_size": 16, "vocab_size": 64},
        text_config=opt,
        num_query_tokens=4,
        image_token_index=4,
    )
    processor = Blip2Processor(BlipImageProcessor(size=SIZE), tokenizer(), num_query_tokens=4)
    return save(Blip2ForConditionalGeneration(config), processor, folder)


def blip(folder):
    text = {**VISION, "vocab_size": 64, "encoder_hidden_size": 16, "bos_token_id": 1, "eos_token_id": 2}
    text |= {"pad_token_id": 0, "sep_token_id": 2, "max_position_embeddings": 64}
    config = BlipConfig(text_config=text, vision_config={**VISION, **IMAGE})
    return save(BlipForConditionalGeneration(config), BlipProcessor(BlipImageProcessor(size=SIZE), tokenizer()), folder)


def encoder_decoder(folder):
    decoder = GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2, n_positions=64, bos_token_id=1, eos_token_id=2)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(**VISION, **IMAGE), decoder)
    config.decoder_start_token_id, config.pad_token_id = 1, 0
    return save(VisionEncoderDecoderModel(config=config), (ViTImageProcessor(size=SIZE), tokenizer()), folder)


def clip(folder):
    text = {**VISION, "vocab_size": 64, "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 2}
    config = CLIPConfig(text_config=text, vision_config={**VISION, **IMAGE}, projection_dim=8)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SIZE)
    return save(CLIPModel(config), CLIPProcessor(images, tokenizer()), folder)


def jpeg(seed):
    target = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (2, 2, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((60, 40), Image.Resampling.NEAREST).save(target, "JPEG")
    return target.getvalue()


PICTURES = [jpeg(seed) for seed in range(5)]


@pytest.fixture(scope="module")
def tiny_blip_2(tmp_path_factory):
    return blip_2(tmp_path_factory.mktemp("blip-2"))


@pytest.mark.parametrize(("make", "prompt"), [(blip_2, None), (blip_2, "w1 w2"), (blip, None), (encoder_decoder, None)])
def test_a_caption_is_that_of_its_picture_in_every_batch(tmp_path, make, prompt):
    options = CaptionOptions(model=str(make(tmp_path / "model")), prompt=prompt, max_tokens=8, batch_size=3)
    captioner = Captioner(options, "cpu")
    alone = [captioner.captions([picture])[0] for picture in PICTURES]
    assert len(set(alone)) > 2
    assert captioner.captions(PICTURES[:3]) == alone[:3]
    assert captioner.captions([PICTURES[i] for i in (4, 1)]) == [alone[4], alone[1]]
    assert all(caption and "<" not in caption for caption in alone)
    assert not any(caption.startswith("w1 w2 w1 w2") for caption in alone)


def test_a_similarity_is_that_of_its_pair_in_every_batch(tmp_path):
    options = CaptionOptions(similarity=str(clip(tmp_path / "clip")), batch_size=3)
    judge, texts = SimilarityJudge(options, "cpu"), ["w1 w2", "w3", "w4 w5 w6 " * 20]
    alone = [judge.similarities([picture], [text])[0] for picture, text in zip(PICTURES, texts, strict=False)]
    assert judge.similarities(PICTURES[:3], texts) == alone
    assert len(set(alone)) == 3
    assert all(-1 <= value <= 1 for value in alone)


def test_bf16_is_a_choice(tiny_blip_2):
    captioner = Captioner(CaptionOptions(model=str(tiny_blip_2), precision="bf16", batch_size=2), "cpu")
    assert captioner.model.dtype == torch.bfloat16
    assert captioner.captions(PICTURES[:1])[0]


def test_models_that_are_not_here(tmp_path, tiny_blip_2):
    with pytest.raises(
        TimeloomError, match="nothing is downloaded: there is no folder no/such, and no no/such in the Hub's"
    ):
        find_model("no/such")
    with pytest.raises(TimeloomError, match=r"has no config\.json"):
        find_model(str(tmp_path))
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((tiny_blip_2 / "config.json").read_bytes())
    with pytest.raises(TimeloomError, match=f"the model folder {broken} cannot be loaded"):
        Captioner(CaptionOptions(model=str(broken)), "cpu")


class Shuffled:
    """An engine whose sources come in any order and in groups of any size."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def run(self, each, items, together=None):
        numbers = self.random.sample(range(len(items)), len(items))
        while numbers:
            group = [numbers.pop() for _ in range(min(len(numbers), self.random.randint(1, 4)))]
            results = [each(items[number]) for number in group]
            yield from zip(group, together(results) if together else results, strict=True)


class ReadsColours:
    """A captioner that tells the colour of the wall, which no other scene has."""

    batch_size = 3

    def captions(self, pictures):
        found = []
        for picture in pictures:
            wall = np.asarray(Image.open(io.BytesIO(picture)))[5:-5, -6:].mean(axis=(0, 1))
            found.append(" ".join(str(round(value / 25)) for value in wall))
        return found


def curated(tmp_path, output, engine, *changes):
    job = Job(tmp_path / "videos", tmp_path / output / "work", load("any-size", ["filters={}", *changes]))
    curate(job, Layout(tmp_path / output), engine, lambda what, things, total: things)
    return pq.read_table(tmp_path / output / "clips.parquet").to_pylist()


SCENES = {"a.mp4": (0, 1), "b.mp4": (2,), "c.mp4": (3, 4, 5), "d.mp4": (1, 0, 2), "e.mp4": (5, 3)}


@pytest.mark.parametrize("seed", range(3))
def test_no_clip_gets_the_caption_of_another(tmp_path, make_film, monkeypatch, colours, seed):
    for name, scenes in SCENES.items():
        make_film(name, scenes)
    monkeypatch.setattr(captions, "captioner", lambda options, device: ReadsColours())
    rows = curated(tmp_path, "out", Shuffled(seed), "captions.model=colours")
    expected = [(name, colour) for name, scenes in SCENES.items() for colour in scenes]
    for row, (name, colour) in zip(rows, expected, strict=True):
        assert row["source"] == name
        said = np.array(row["caption"].split(), dtype=int)
        assert np.abs(said - np.array(colours[colour]) / 25).max() <= 1
        assert row["kept"] and row["caption_words"] == 3 and row["caption_origin"] == "colours"


def test_a_run_with_blip_2_and_clip(tmp_path, make_film, tiny_blip_2):
    make_film("a.mp4", (0, 1))
    make_film("b.mp4", (2, 3, 4))
    make_film("c.mp4", (5,))
    (tmp_path / "videos/c.txt").write_text("w3 w4")
    models = [f"captions.model={tiny_blip_2}", f"captions.similarity={clip(tmp_path / 'clip')}"]
    rows = curated(tmp_path, "out", Shuffled(0), *models, "captions.batch_size=4")
    assert [row["caption_origin"] for row in rows] == [str(tiny_blip_2)] * 5 + ["sidecar"]
    assert all(row["kept"] and -1 <= row["clip_similarity"] <= 1 for row in rows)
    recipe = load("any-size", ["filters={}", *models, "captions.batch_size=4"])
    captioner = Captioner(recipe.captions, "cpu")
    store = Store(tmp_path / "out/work", recipe.scanning)
    places = [0, 1, 0, 1, 2]
    for row, number in zip(rows, places, strict=False):
        with store.reading(row["source_id"]) as kept:
            assert captioner.captions([kept.picture(number)]) == [row["caption"]]
    assert curated(tmp_path, "again", Shuffled(1), *models, "captions.batch_size=4") == rows


def test_clips_that_filters_drop_are_not_captioned_unless_asked(tmp_path, make_film, monkeypatch):
    make_film("a.mp4", (0, 1))
    monkeypatch.setattr(captions, "captioner", lambda options, device: ReadsColours())
    changes = ["captions.model=colours", "filters={height: {min: 720}}"]
    assert {row["caption"] for row in curated(tmp_path, "out", Shuffled(0), *changes)} == {""}
    rows = curated(tmp_path, "out", Shuffled(0), *changes, "captions.dropped_too=true")
    assert all(row["caption"] and row["reasons"] == ["height below 720"] for row in rows)


def test_captions_made_elsewhere_come_first(tmp_path, make_film, monkeypatch):
    make_film("a.mp4", (0, 1))
    monkeypatch.setattr(captions, "captioner", lambda options, device: ReadsColours())
    rows = curated(tmp_path, "out", Shuffled(0), "captions.model=colours")
    Path(tmp_path / "own.csv").write_text(f'clip_id,caption\n{rows[1]["clip_id"]},"a green wall"\n')
    again = curated(tmp_path, "out", Shuffled(0), "captions.model=colours", f"captions.file={tmp_path}/own.csv")
    assert [row["caption"] for row in again] == [rows[0]["caption"], "a green wall"]
    assert again[1]["caption_origin"] == "file"
