"""Tiny random models, as diffusers keeps them, built once."""

import json
from pathlib import Path

import pytest

MAX_TOKENS = 16
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "scheduler": ["diffusers", "DDIMScheduler"],
}


def tiny_unet(text_width, **options):
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=text_width,
        **options,
    )


def tiny_vae():
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
    )


def save_parts(folder, parts, index):
    """Write each part as diffusers does, and the index."""
    from diffusers import DDIMScheduler

    for name, part in parts.items():
        part.save_pretrained(folder / name)
    DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def build_stable_diffusion(folder, second, unet=None, index=INDEX):
    """Stable Diffusion 1.x, or 2.x: linear projections, heads 64 wide, a text encoder with GELU; or any U-Net given."""
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(int(second))
    characters = [chr(code) for code in range(33, 127)]
    words = [*characters, *(character + "</w>" for character in characters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=MAX_TOKENS)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=128 if second else 64,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2 if second else 1,
            max_position_embeddings=MAX_TOKENS,
            hidden_act="gelu" if second else "quick_gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    if unet is not None:
        pass
    elif second:
        heads = {"block_out_channels": (64, 128), "attention_head_dim": (1, 2), "use_linear_projection": True}
        unet = tiny_unet(128, **heads)
    else:
        unet = tiny_unet(64, block_out_channels=(32, 64), attention_head_dim=8)
    parts = {"unet": unet, "vae": tiny_vae(), "text_encoder": text_encoder, "tokenizer": tokenizer}
    return save_parts(folder, parts, index)


@pytest.fixture(scope="session")
def sd1_folder(tmp_path_factory) -> Path:
    """A tiny Stable Diffusion 1.x. Do not write to it: copy it first."""
    return build_stable_diffusion(tmp_path_factory.mktemp("models") / "sd1", second=False)


@pytest.fixture(scope="session")
def sd2_folder(tmp_path_factory) -> Path:
    """A tiny Stable Diffusion 2.x. Do not write to it: copy it first."""
    return build_stable_diffusion(tmp_path_factory.mktemp("models") / "sd2", second=True)


@pytest.fixture(scope="session")
def modelscope_folder(tmp_path_factory) -> Path:
    """A tiny ModelScope text-to-video, no tensor of it zero. Do not write to it: copy it first."""
    import torch
    from diffusers import UNet3DConditionModel

    torch.manual_seed(3)
    unet = UNet3DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        norm_num_groups=4,
        cross_attention_dim=128,
        attention_head_dim=8,
    )
    for parameter in unet.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    index = {**INDEX, "_class_name": "TextToVideoSDPipeline", "unet": ["diffusers", "UNet3DConditionModel"]}
    return build_stable_diffusion(tmp_path_factory.mktemp("models") / "modelscope", True, unet, index)


@pytest.fixture(scope="session")
def ldm_folder(tmp_path_factory) -> Path:
    """A tiny LDM text2img: other names of the folders, BERT's tokenizer, and a text encoder of its own."""
    import torch
    from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel

    torch.manual_seed(2)
    folder = tmp_path_factory.mktemp("models") / "ldm"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
    config = LDMBertConfig(
        vocab_size=len(words),
        max_position_embeddings=MAX_TOKENS,
        encoder_layers=1,
        encoder_ffn_dim=32,
        encoder_attention_heads=2,
        head_dim=8,
        d_model=32,
    )
    unet = tiny_unet(32, block_out_channels=(32, 64), attention_head_dim=8)
    index = {
        "_class_name": "LDMTextToImagePipeline",
        "unet": INDEX["unet"],
        "vqvae": INDEX["vae"],
        "bert": ["latent_diffusion", "LDMBertModel"],
        "tokenizer": ["transformers", "BertTokenizer"],
        "scheduler": INDEX["scheduler"],
    }
    save_parts(folder, {"unet": unet, "vqvae": tiny_vae(), "bert": LDMBertModel(config)}, index)
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.txt").write_text("\n".join(words) + "\n")
    (folder / "tokenizer" / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    return folder


@pytest.fixture()
def run(capsys):
    """Run `timeloom model ...`: its exit code, and what it wrote to stdout and stderr."""
    from timeloom import cli

    def run(*args):
        capsys.readouterr()  # what the test's own loading printed
        code = cli.main(["model", *map(str, args)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
