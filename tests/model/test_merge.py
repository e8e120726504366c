import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from timeloom.adapters import read_adapter
from timeloom.generate.pipeline import TextToVideoPipeline

UNET = "unet/diffusion_pytorch_model.safetensors"


def edit(path, change):
    """Change a safetensors file: `change` gets its dictionary of tensors."""
    tensors = {key: value.clone() for key, value in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)


def move(tensors):
    """Some weights and biases as if they had been trained."""
    for i, key in enumerate(sorted(tensors)):
        if ".resnets." in key:
            noise = torch.randn(tensors[key].shape, generator=torch.Generator().manual_seed(i))
            tensors[key] += 0.1 * noise


@pytest.fixture()
def tuned(sd1_folder, tmp_path, run):
    """The tiny image model as a video model, its weights changed."""
    folder = tmp_path / "tuned"
    assert run("convert", sd1_folder, folder, "--num-frames", "4", "--fps", "12")[0] == 0
    edit(folder / UNET, move)
    return folder


@pytest.fixture()
def adapter(sd1_folder, tuned, tmp_path, run):
    path = tmp_path / "adapters" / "motion.safetensors"
    code, out, err = run("diff", sd1_folder, tuned, path, "--dtype", "fp32")
    assert code == 0 and str(path) in out and not err
    return path


def test_base_and_difference_are_the_tuned_model(sd1_folder, tuned, adapter, tmp_path, run):
    base, wanted = load_file(sd1_folder / UNET), load_file(tuned / UNET)
    changed = {key for key, value in base.items() if not torch.equal(value, wanted[key])}
    assert len(changed) == len(read_adapter(adapter).tensors) > 0
    code, out, err = run("merge", sd1_folder, adapter, tmp_path / "made", "--json")
    assert code == 0, err
    assert (json.loads(out)["changed"], json.loads(out)["temporal"]) == (len(changed), "shift")
    made = load_file(tmp_path / "made" / UNET)
    for key, value in wanted.items():
        if key in changed:
            torch.testing.assert_close(made[key], value)
        else:
            assert torch.equal(made[key], base[key])
    pipe = TextToVideoPipeline.from_pretrained(tmp_path / "made")
    assert (pipe.unet.config.temporal, pipe.config.num_frames, pipe.config.fps) == ("shift", 4, 12)


def test_none_of_it_is_the_base_with_the_mechanism_on(sd1_folder, adapter, tmp_path, run):
    assert run("merge", sd1_folder, adapter, tmp_path / "made", "--scale", "0")[0] == 0
    assert run("convert", sd1_folder, tmp_path / "plain", "--num-frames", "4", "--fps", "12")[0] == 0
    for name in (UNET, "unet/config.json", "model_index.json"):
        assert (tmp_path / "made" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_half_precision_is_close(sd1_folder, tuned, tmp_path, run):
    assert run("diff", sd1_folder, tuned, tmp_path / "a.safetensors")[0] == 0
    assert run("merge", sd1_folder, tmp_path / "a.safetensors", tmp_path / "made")[0] == 0
    made, wanted = load_file(tmp_path / "made" / UNET), load_file(tuned / UNET)
    assert all((made[key] - value).abs().max() < 5e-4 for key, value in wanted.items())


def test_another_checkpoint_of_the_family_moves(sd1_folder, adapter, tmp_path, run):
    other = shutil.copytree(sd1_folder, tmp_path / "other")
    edit(other / UNET, lambda tensors: [tensor.mul_(1.5) for tensor in tensors.values()])
    assert run("merge", other, adapter, tmp_path / "made")[0] == 0
    made, before = load_file(tmp_path / "made" / UNET), load_file(other / UNET)
    change = read_adapter(adapter)
    for name, [key] in change.by_weight().items():
        torch.testing.assert_close(made[name], before[name] + change.tensors[key])


def test_what_does_not_fit_is_refused_and_nothing_is_written(sd1_folder, sd2_folder, tuned, adapter, tmp_path, run):
    made = tmp_path / "made"
    code, _, err = run("merge", sd2_folder, adapter, made)
    assert code == 2 and "'unet." in err and "another family, block_out_channels is [32, 64] there" in err
    attention = tmp_path / "attention"
    assert run("convert", sd1_folder, attention, "--temporal", "attention")[0] == 0
    code, _, err = run("merge", attention, adapter, made)
    assert code == 2 and "'attention'" in err
    assert run("merge", sd1_folder, adapter, made, "--scale", "nan")[0] == 2
    assert not made.exists()
    for arguments, complaint in (
        ((sd1_folder, attention, tmp_path / "b.safetensors"), "tensors of its own"),
        ((sd2_folder, tuned, tmp_path / "b.safetensors"), "no weight"),
        ((sd1_folder, sd1_folder, tmp_path / "b.safetensors"), "equal"),
        ((sd1_folder, tuned, tmp_path / "b.bin"), "a .safetensors file"),
        ((sd1_folder, tuned, adapter), "--overwrite"),
    ):
        code, _, err = run("diff", *arguments)
        assert code == 2 and complaint in err
    assert not (tmp_path / "b.safetensors").exists()


def test_a_model_is_replaced_only_when_told_to(sd1_folder, adapter, tmp_path, run):
    assert run("merge", sd1_folder, adapter, tmp_path / "made")[0] == 0
    code, _, err = run("merge", sd1_folder, adapter, tmp_path / "made", "--scale", "2")
    assert code == 2 and "--overwrite" in err
    assert run("merge", sd1_folder, adapter, tmp_path / "made", "--scale", "2", "--overwrite")[0] == 0
    within = shutil.copy(adapter, tmp_path / "made" / adapter.name)
    code, _, err = run("merge", sd1_folder, within, tmp_path / "made", "--overwrite")
    assert code == 2 and "holds the source itself" in err


def test_parts_beside_that_differ_are_named(sd1_folder, tuned, tmp_path, run):
    vae = tuned / "vae/diffusion_pytorch_model.safetensors"
    edit(vae, lambda tensors: tensors[min(tensors)].add_(1))
    code, _, err = run("diff", sd1_folder, tuned, tmp_path / "b.safetensors")
    assert code == 0 and "The vae differs" in err and "text_encoder" not in err
