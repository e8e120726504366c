import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from timeloom import zoo
from timeloom.errors import TimeloomError
from timeloom.models.rcan import RCAN
from timeloom.upscaler import PART, Upscaler, load_rcan, require_scale, to_bytes

WEIGHTS = f"{PART}/diffusion_pytorch_model.safetensors"


def tiny(scale: int = 4) -> RCAN:
    torch.manual_seed(1)
    return RCAN(num_groups=1, num_blocks=2, width=8, reduction=2, scale=scale)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("tile", [1, 5, 16])
def test_parts_change_no_pixel_and_leave_no_seam(scale: int, tile: int) -> None:
    """Not even at the borders of parts: attention, which sees the whole frame, is done before the frame is cut."""
    network, images = tiny(scale), torch.rand(2, 3, 17, 13)
    whole, parts = Upscaler(network, 10_000)(images), Upscaler(network, tile)(images)
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)
    assert whole.shape == (2, 3, 17 * scale, 13 * scale) and whole.min() >= 0 and whole.max() <= 1


def test_frames_do_not_depend_on_their_mates_and_bytes_are_rounded() -> None:
    upscaler = Upscaler(tiny(), tile=8)
    frames = np.random.default_rng(0).integers(0, 256, (5, 6, 9, 3), dtype=np.uint8)
    made = upscaler.enlarge(frames)
    assert made.shape == (5, 24, 36, 3) and made.dtype == np.uint8
    assert np.abs(made[3].astype(int) - upscaler.enlarge(frames[3:4])[0]).max() <= 1
    assert np.array_equal(to_bytes(torch.from_numpy(frames).permute(0, 3, 1, 2) / 255), frames)


def test_the_ensemble_is_the_mean_over_turned_and_mirrored_copies() -> None:
    network, images = tiny(), torch.rand(1, 3, 6, 9)
    once, ensemble = Upscaler(network), Upscaler(network, self_ensemble=True)
    wanted = torch.zeros(1, 3, 24, 36)
    for axes in ([], [-1], [-2], [-1, -2]):
        wanted += once(images.flip(axes)).flip(axes) / 8
        wanted += once(images.flip(axes).mT).mT.flip(axes) / 8
    torch.testing.assert_close(ensemble(images), wanted)
    torch.testing.assert_close(ensemble(images.flip(-1).mT), wanted.flip(-1).mT)
    assert not torch.allclose(once(images), wanted, atol=1e-4)


def test_half_precision_is_near() -> None:
    images = torch.rand(1, 3, 12, 12)
    full = Upscaler(tiny())(images)
    half = Upscaler(tiny().to(torch.bfloat16))(images)
    assert half.dtype == torch.float32
    assert (half - full).abs().max() < 0.02


def test_a_folder_and_a_file_of_the_authors_names_load_the_same(tmp_path) -> None:
    network = tiny(3)
    Upscaler(network).save_pretrained(tmp_path / "folder")
    tensors = load_file(tmp_path / "folder" / WEIGHTS)
    torch.save(tensors, tmp_path / "RCAN_BIX3.pt")
    images = torch.rand(1, 3, 5, 6)
    wanted = Upscaler(network)(images)
    for name in ("folder", "RCAN_BIX3.pt", f"folder/{WEIGHTS}"):
        upscaler = Upscaler.from_pretrained(tmp_path / name)
        assert upscaler.scale == 3
        torch.testing.assert_close(upscaler(images), wanted)
    without = {name: tensor for name, tensor in tensors.items() if "_mean" not in name}  # as some files are
    save_file(without, tmp_path / "bare.safetensors")
    assert load_rcan(tmp_path / "bare.safetensors").config.pixel_range == 255


def test_weights_for_another_scale_or_network_say_so(tmp_path) -> None:
    Upscaler(tiny(4)).save_pretrained(tmp_path / "four")
    Upscaler(tiny(2)).save_pretrained(tmp_path / "two")
    require_scale(load_rcan(tmp_path / "four"), 4, "four")
    with pytest.raises(TimeloomError, match="four makes frames 4 times larger, not 2 times"):
        require_scale(load_rcan(tmp_path / "four"), 2, "four")
    tensors = load_file(tmp_path / "two" / WEIGHTS)
    save_file(tensors, tmp_path / "four" / WEIGHTS)
    with pytest.raises(TimeloomError, match=r"lacks the tensor 'tail\.0\.2"):
        load_rcan(tmp_path / "four")
    Upscaler(tiny(3)).save_pretrained(tmp_path / "three")
    save_file(tensors, tmp_path / "three" / WEIGHTS)
    with pytest.raises(TimeloomError, match="another scale"):
        load_rcan(tmp_path / "three")
    eight = {f"tail.0.{place}.weight": torch.zeros(32, 8, 3, 3) for place in (0, 2, 4)}
    save_file({**tensors, **eight}, tmp_path / "eight.safetensors")
    with pytest.raises(TimeloomError, match=r"eight\.safetensors: the tensors are those of an RCAN for scale 8"):
        load_rcan(tmp_path / "eight.safetensors")
    config = json.loads((tmp_path / "four" / PART / "config.json").read_text())
    (tmp_path / "four" / PART / "config.json").write_text(json.dumps({**config, "scale": 5}))
    with pytest.raises(TimeloomError, match=r"config\.json: scale must be 2, 3 or 4, not 5"):
        load_rcan(tmp_path / "four")
    save_file({**tensors, "tail.9.weight": torch.zeros(1)}, tmp_path / "two" / WEIGHTS)
    with pytest.raises(TimeloomError, match="no place for"):
        load_rcan(tmp_path / "two")
    save_file({**tensors, "head.0.bias": torch.full((8,), float("nan"))}, tmp_path / "two" / WEIGHTS)
    with pytest.raises(TimeloomError, match="not finite"):
        load_rcan(tmp_path / "two")
    save_file({"conv.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(TimeloomError, match=r"other\.safetensors.*not those of an RCAN"):
        load_rcan(tmp_path / "other.safetensors")
    with pytest.raises(TimeloomError, match="not a model that makes frames larger"):
        load_rcan("digits-shift")
    with pytest.raises(TimeloomError, match="digits-upscaler"):
        load_rcan("digits-upscalr")


def test_pixels_that_are_not_finite_never_become_a_video() -> None:
    network = tiny()
    with torch.no_grad():
        network.tail[1].bias.fill_(float("inf"))
    with pytest.raises(TimeloomError, match="not finite"):
        Upscaler(network)(torch.rand(1, 3, 4, 4))
    with pytest.raises(TimeloomError, match="tile"):
        Upscaler(network, tile=0)


def test_the_zoos_upscaler_is_small_and_beats_bicubic_on_degraded_digits() -> None:
    from timeloom import recipes
    from timeloom.data import DigitsSource, Window
    from timeloom.evaluate.upscaler_command import judge
    from timeloom.schema import read_yaml
    from timeloom.upscale.degradation import DegradationOptions
    from timeloom.upscale.degrader import Degrader

    size = sum(path.stat().st_size for path in (zoo.ZOO / "digits-upscaler").rglob("*") if path.is_file())
    assert size <= 4 * 2**20
    raw = read_yaml(recipes.find("digits/upscaler"))["degradation"]
    options = DegradationOptions.model_validate({**raw, "autoencoder": 0})
    upscaler, degrader = Upscaler.from_pretrained("digits-upscaler"), Degrader(options, 4)
    source = DigitsSource("test")
    judged = [judge(source, index, Window(2, 8, 256, 256), degrader, index, upscaler) for index in range(6)]
    gains = [clip.scores["network"]["psnr"] - clip.scores["bicubic"]["psnr"] for clip in judged]
    assert np.mean(gains) > 3
    calmer = [clip.scores["network"]["flicker"] <= clip.scores["bicubic"]["flicker"] for clip in judged]
    assert all(calmer)
