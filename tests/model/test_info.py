import json

import pytest
from safetensors import safe_open

from timeloom.model.families import known_model
from timeloom.model.info import count_parameters
from timeloom.models.families import FAMILIES
from timeloom.models.unet import MECHANISMS
from timeloom.zoo import ZOO

needs_attention = pytest.mark.skipif("attention" not in MECHANISMS, reason="no temporal attention in this version")


def stored_parameters(folder):
    total = 0
    for path in folder.glob("*/*.safetensors"):
        with safe_open(path, "pt") as file:
            total += sum(file.get_tensor(key).numel() for key in file.keys())  # noqa: SIM118
    return total


def describe(run, *args):
    code, out, err = run("info", *args, "--json")
    assert code == 0, err
    return json.loads(out)


def test_latent_shift_has_the_papers_size():
    counts = count_parameters(known_model("ldm-text2img-large"), "shift")
    assert counts["temporal_mechanism"] == 0
    assert round(counts["total"] / 1e9, 3) == 1.538
    parts = [round(counts[part] / 1e6, 1) for part in ("unet", "vae", "text_encoder")]
    assert parts == [872.3, 83.7, 582.0]


@needs_attention
def test_latent_vdm_has_the_papers_size():
    counts = count_parameters(known_model("ldm-text2img-large"), "attention")
    assert counts["total"] == pytest.approx(1.588e9, rel=0.01)
    assert (
        counts["total"] - counts["temporal_mechanism"]
        == count_parameters(known_model("ldm-text2img-large"), "none")["total"]
    )


def test_videofactory_has_the_papers_size():
    """2.04 B: with a feed-forward network in Swap-CA, whose 12 C² at eight places make the difference to 1.95 B."""
    counts = count_parameters(known_model("modelscope"), "swap")
    assert counts["total"] == pytest.approx(2.04e9, rel=0.001)
    less = count_parameters(known_model("modelscope"), "swap", {"feed_forward": False})
    squares = sum(width**2 for width in (320, 640, 1280, 1280)) * 2
    assert counts["total"] - less["total"] == pytest.approx(12 * squares, rel=0.001)
    first = count_parameters(known_model("modelscope"), "swap", {"queries": "none"})
    assert counts["total"] - first["total"] == pytest.approx(19 * squares, rel=0.002)


@pytest.mark.parametrize(("name", "millions"), [("sd15", (859.5, 83.7, 123.1)), ("sd21", (865.9, 83.7, 340.4))])
def test_stable_diffusion_has_its_known_size(name, millions):
    counts = count_parameters(known_model(name), "none")
    assert tuple(round(counts[part] / 1e6, 1) for part in ("unet", "vae", "text_encoder")) == millions


def test_the_zoo_model(run):
    told = describe(run, "digits-shift", "--frames", 2)
    assert told["parameters"]["total"] == stored_parameters(ZOO / "digits-shift")
    assert told["temporal"] == "shift"
    assert told["flops"]["temporal_mechanism_per_step"] == 0
    flops, memory = told["flops"], told["memory"]
    steps = told["clip"]["num_inference_steps"]
    assert flops["per_clip"] == steps * flops["per_step"] + flops["text"] + flops["decoding"]
    assert memory["inference"] == 2 * told["parameters"]["total"] + memory["inference_activations"]
    trained = told["parameters"]["unet"]
    assert memory["training_state"] == 4 * (5 * trained + told["parameters"]["total"] - trained)
    assert memory["training_activations_per_clip_checkpointed"] < memory["training_activations_per_clip"]


def test_costs_grow_as_they_should(sd1_folder, run):
    base = describe(run, sd1_folder, "--frames", 2, "--temporal", "shift", "--precision", "fp32")
    longer = describe(run, sd1_folder, "--frames", 4, "--temporal", "shift", "--precision", "fp32")
    alone = describe(run, sd1_folder, "--frames", 2, "--temporal", "shift", "--guidance", 1, "--precision", "fp32")
    assert base["flops"]["decoding"] * 2 == longer["flops"]["decoding"]
    assert alone["flops"]["per_step"] * 2 == base["flops"]["per_step"]
    assert 1.9 < longer["flops"]["per_step"] / base["flops"]["per_step"] < 2  # the text is read once a clip
    assert 2.5 < base["flops"]["training_per_clip"] / alone["flops"]["per_step"] < 3.1
    half = describe(run, sd1_folder, "--frames", 2, "--temporal", "shift")
    assert half["memory"]["inference"] * 2 == pytest.approx(base["memory"]["inference"], rel=0.02)


@needs_attention
def test_another_mechanism_can_be_asked_about(sd1_folder, run):
    told = describe(run, sd1_folder, "--frames", 2, "--temporal", "attention")
    assert told["parameters"]["temporal_mechanism"] > 0
    assert told["flops"]["temporal_mechanism_per_step"] > 0
    assert (
        told["flops"]["per_step"] == told["flops"]["image_unet_per_step"] + told["flops"]["temporal_mechanism_per_step"]
    )


def test_the_table_is_for_people(sd1_folder, run):
    code, out, _ = run("info", sd1_folder, "--frames", 1)
    assert code == 0
    for words in ("temporal: none", "two predictions a step", "gradient checkpointing", "MiB", "FLOP"):
        assert words in " ".join(out.split())


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "Give one of the two"),
        (["digits-shift", "--config", "sd15"], "Give one of the two"),
        (["--config", "sd1.5"], "Did you mean 'sd15'"),
        (["digits-shfit"], "Did you mean 'digits-shift'"),
        (["digits-shift", "--temporal", "shfit"], "Did you mean 'shift'"),
        (["digits-shift", "--height", "63"], "multiple of"),
        (["digits-shift", "--frames", "0"], "--frames"),
    ],
)
def test_wrong_questions(run, args, words):
    code, out, err = run("info", *args)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


def test_every_known_config_has_a_name_that_help_tells(run, capsys):
    from timeloom import cli

    with pytest.raises(SystemExit):
        cli.main(["model", "info", "--help"])
    text = capsys.readouterr().out
    assert all(name in text for name in FAMILIES)
