import shutil
from pathlib import Path
from typing import ClassVar

import huggingface_hub
import pytest
import torch

from timeloom import zoo
from timeloom.adapters import ADAPTER_FILE, Use, write_adapter
from timeloom.errors import TimeloomError
from timeloom.model.command import main
from timeloom.model.push import CARD


class FakeApi:
    """The two calls of huggingface_hub.HfApi that a push makes, by their documented names."""

    calls: ClassVar[list[tuple]] = []
    error: Exception | None = None

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> str:
        self.calls.append(("create_repo", repo_id, private, exist_ok))
        return f"https://huggingface.co/{repo_id}"

    def upload_folder(self, *, repo_id: str, folder_path: Path, allow_patterns: list[str], commit_message: str) -> None:
        if self.error:
            raise self.error
        self.calls.append(("upload_folder", repo_id, Path(folder_path), set(allow_patterns)))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[FakeApi]:
    monkeypatch.setattr(FakeApi, "calls", [])
    monkeypatch.setattr(FakeApi, "error", None)
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_token")
    return FakeApi


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(zoo.resolve("digits-shift"), tmp_path / "model"))


def test_a_whole_model_is_pushed_with_a_card(hub: type[FakeApi], model: Path, capsys: pytest.CaptureFixture) -> None:
    (model / "notes.txt").write_text("mine")
    (model / "unet/old.bin").write_bytes(b"pickle")
    assert main(["push", str(model), "me/digits", "--private"]) == 0
    made, sent = hub.calls
    assert made == ("create_repo", "me/digits", True, True)
    assert sent[:3] == ("upload_folder", "me/digits", model)
    assert {CARD, "model_index.json", "unet/config.json", "scheduler/scheduler_config.json"} <= sent[3]
    assert not {"notes.txt", "unet/old.bin"} & sent[3]
    assert sum(name.endswith(".safetensors") for name in sent[3]) == 3
    printed = capsys.readouterr().out
    assert "not sent: notes.txt, unet/old.bin" in printed
    assert printed.splitlines()[-1] == "https://huggingface.co/me/digits"
    card = (model / CARD).read_text()
    assert card.startswith("---\nlibrary_name: diffusers\n")
    for words in ("# digits", "mechanism: shift", "16 frames", "64 pixels high", "| unet | 4,407,828 |"):
        assert words in card


def test_a_card_of_ones_own_stays(hub: type[FakeApi], model: Path) -> None:
    (model / CARD).write_text("mine")
    assert main(["push", str(model), "me/digits"]) == 0
    assert (model / CARD).read_text() == "mine"
    assert CARD in hub.calls[1][3]
    assert hub.calls[0][2] is False


def test_a_dry_run_lists_and_sends_nothing(hub: type[FakeApi], model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(model), "me/digits", "--dry-run"]) == 0
    assert hub.calls == [] and not (model / CARD).exists()
    assert "MB  unet/diffusion_pytorch_model.safetensors" in capsys.readouterr().out


def test_an_adapter_is_pushed_with_a_card_of_its_own(hub: type[FakeApi], tmp_path: Path) -> None:
    family = {"cross_attention_dim": 6}
    clip = {"num_frames": 4, "fps": 8, "height": 16, "width": 24}
    mechanism = {"temporal": "shift", "shift_fraction": 0.25, "shift_placement": "residual_end"}
    use = Use(**mechanism, **clip, prediction_type="epsilon", family=family)
    write_adapter(tmp_path / ADAPTER_FILE, use, {"norm.diff": torch.ones(9)}, None)
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["push", str(tmp_path), "me/moves"]) == 0
    assert hub.calls[1][3] == {ADAPTER_FILE, CARD}
    card = (tmp_path / CARD).read_text()
    for words in ("# moves", "cross_attention_dim 6", "mechanism: shift", "4 frames", "--adapter me/moves"):
        assert words in card
    (tmp_path / ADAPTER_FILE).write_bytes(b"none")
    with pytest.raises(TimeloomError, match=ADAPTER_FILE):
        main(["push", str(tmp_path), "me/moves"])


def test_what_is_no_whole_model_is_not_pushed(hub: type[FakeApi], model: Path) -> None:
    for missing in ("tokenizer", "vae/diffusion_pytorch_model.safetensors", "scheduler", "unet", "model_index.json"):
        path = model / missing
        path.rename(model.parent / "aside")
        with pytest.raises(TimeloomError):
            main(["push", str(model), "me/digits"])
        (model.parent / "aside").rename(path)
    with pytest.raises(TimeloomError, match="no folder"):
        main(["push", str(model / "nowhere"), "me/digits"])
    assert hub.calls == []


def test_what_the_hub_refuses_is_said_in_one_sentence(
    hub: type[FakeApi], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TimeloomError, match="USER/NAME"):
        main(["push", str(model), "digits"])
    hub.error = ConnectionError("Cannot reach huggingface.co\nand much more")
    with pytest.raises(TimeloomError, match=r"^me/digits was not pushed: Cannot reach huggingface\.co$"):
        main(["push", str(model), "me/digits"])
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(TimeloomError, match="hf auth login"):
        main(["push", str(model), "me/digits"])


def test_the_real_client_takes_our_calls() -> None:
    import inspect

    for call in ("create_repo", "upload_folder"):
        ours = inspect.signature(getattr(FakeApi, call)).parameters
        assert ours.keys() <= inspect.signature(getattr(huggingface_hub.HfApi, call)).parameters.keys()
