"""Names that VBench and EvalCrafter look for."""

import json

import pytest

from timeloom.data import read_video, write_video
from timeloom.errors import TimeloomError
from timeloom.evaluate.export import main, read_prompt_list
from timeloom.evaluate.video_sets import add_texts, find_videos


@pytest.fixture
def folder(tmp_path, colours):
    """Five videos of one prompt and one of another, under names of our own; one of them lossless."""
    clips = colours(6)
    for number, (_, clip) in enumerate(clips):
        text = "a red wall" if number < 5 else "An either/or, slowly."
        write_video(tmp_path / "own" / f"{number:06d}.{'webp' if number == 1 else 'mp4'}", clip, 8, {"prompt": text})
    return tmp_path


def vbench(folder, prompts):
    path = folder / "VBench_full_info.json"
    path.write_text(json.dumps([{"prompt_en": text, "dimension": ["color"]} for text in [*prompts, prompts[0]]]))
    return path


def test_vbenchs_layout_and_back(folder, capsys):
    prompts = vbench(folder, ["a red wall", "An either/or, slowly."])
    assert main(["vbench", str(folder / "own"), str(folder / "out"), "--prompts", str(prompts), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["written"] == 6 and told["lacking"] == [f"An either or, slowly.-{number}.mp4" for number in range(1, 5)]
    names = sorted(path.name for path in (folder / "out").iterdir())
    assert names == ["An either or, slowly.-0.mp4", *(f"a red wall-{number}.mp4" for number in range(5))]
    assert (folder / "out" / "a red wall-0.mp4").read_bytes() == (folder / "own" / "000000.mp4").read_bytes()
    assert read_video(folder / "out" / "a red wall-1.mp4").shape == (16, 32, 32, 3)
    again = find_videos(folder / "out", "fake")
    add_texts(again, folder / "out")
    assert set(again.texts.values()) == {"a red wall", "An either/or, slowly."}
    main(["vbench", str(folder / "own"), str(folder / "out"), "--prompts", str(prompts), "--json"])
    assert json.loads(capsys.readouterr().out)["kept"] == 6


def test_evalcrafters_layout(folder, capsys):
    prompts = folder / "prompt700.txt"
    prompts.write_text("a bird\nAn either/or, slowly.\na red wall\n")
    assert main(["evalcrafter", str(folder / "own"), str(folder / "out"), "--prompts", str(prompts)]) == 1
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["0001.mp4", "0002.mp4"]
    assert "lacking: 0000.mp4" in capsys.readouterr().out


def test_wrong_lists_and_folders(folder):
    (folder / "list.json").write_text('{"prompt": "a"}')
    with pytest.raises(TimeloomError, match="is not VBench's list of prompts"):
        read_prompt_list(folder / "list.json")
    with pytest.raises(TimeloomError, match="there is no such folder"):
        main(["vbench", str(folder / "nowhere"), str(folder / "out"), "--prompts", str(folder / "list.json")])


def test_the_real_lists(shared_data):
    assert len(read_prompt_list(shared_data / "text" / "evalcrafter_prompts.txt")) == 700
    assert len(read_prompt_list(shared_data / "text" / "vbench" / "VBench_full_info.json")) > 900
