import pytest

from timeloom.errors import TimeloomError
from timeloom.study.systems import match, parse_parameters, parse_systems, read_folder, read_lines

from .conftest import draw_videos


@pytest.fixture()
def source(tmp_path):
    draw_videos(tmp_path / "one", ["a cat", "a dog", "a cat"], 0)
    draw_videos(tmp_path / "two", ["a dog", "A  Cat", "a cat"], 1)
    return tmp_path


def test_names_and_folders(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    a, b = tmp_path / "a", tmp_path / "b"
    assert parse_systems([f"ours={a}", str(b)]) == {"ours": a, "b": b}
    with pytest.raises(TimeloomError, match="same name 'Ours'"):
        parse_systems([f"ours={a}", f"Ours={b}"])
    with pytest.raises(TimeloomError, match="same name 'a'"):
        parse_systems([str(a), str(a)])
    with pytest.raises(TimeloomError, match="no folder"):
        parse_systems([f"x={tmp_path / 'c'}", str(a)])
    with pytest.raises(TimeloomError, match="2 to 20 systems, not 1"):
        parse_systems([str(a)])


def test_parameters():
    assert parse_parameters(["a=1.5B", "b=865M", "c=2e9", "d=20000"], "abcd") == {
        "a": 1.5e9,
        "b": 865e6,
        "c": 2e9,
        "d": 20000,
    }
    for word in ("a=many", "a=-1", "a=0", "a=nan", "a"):
        with pytest.raises(TimeloomError, match="--parameters"):
            parse_parameters([word], ["a"])


def test_by_prompt_whatever_the_order_case_and_spacing(source):
    matched, missing = match({name: read_folder(source / name) for name in ("one", "two")})
    assert not missing
    names = [(found.prompt, *(path.name for path in found.videos)) for found in matched]
    assert names == [("a cat", "000.mp4", "001.mp4"), ("a dog", "001.mp4", "000.mp4"), ("a cat", "002.mp4", "002.mp4")]


def test_captions_and_sidecars_say_prompts_too(source):
    (source / "one" / "captions.csv").write_text("file,caption\n000.mp4,a horse\n")
    (source / "two" / "001.txt").write_text("a horse\n")
    prompts = {name: [video.prompt for video in read_folder(source / name)] for name in ("one", "two")}
    assert prompts == {"one": ["a horse", "a dog", "a cat"], "two": ["a dog", "a horse", "a cat"]}


def test_by_index_prompts_must_agree(source):
    folders = {name: read_folder(source / name) for name in ("one", "two")}
    with pytest.raises(TimeloomError, match="index 0 have different prompts: 'a cat' and 'a dog'"):
        match(folders, "index")
    (source / "lines.txt").write_text("a dog\n\nA CAT\na cat\n")
    matched, _ = match({"two": folders["two"], "again": folders["two"]}, "index", read_lines(source / "lines.txt"))
    assert [found.prompt for found in matched] == ["a dog", "A Cat", "a cat"]
    with pytest.raises(TimeloomError, match="--prompts has 1 lines, and there is a video of index 1"):
        match({"two": folders["two"], "again": folders["two"]}, "index", ["a dog"])
    with pytest.raises(TimeloomError, match="different prompts"):
        match({"two": folders["two"], "again": folders["two"]}, "index", ["a cow", "a cat", "a cat"])


def test_unequal_folders_are_named(source):
    (source / "two" / "000.mp4").unlink()
    folders = {name: read_folder(source / name) for name in ("one", "two")}
    with pytest.raises(TimeloomError, match=r"two has no video of prompt 'a dog'.*--allow-missing"):
        match(folders)
    matched, missing = match(folders, allow_missing=True)
    assert len(matched) == 2 and missing == ["two has no video of prompt 'a dog'"]


def test_what_cannot_be_matched(source):
    (source / "one" / "000.mp4").rename(source / "one" / "name.mp4")
    one = read_folder(source / "one")
    with pytest.raises(TimeloomError, match=r"name\.mp4 begins with no number"):
        match({"one": one, "two": read_folder(source / "two")}, "index")
    (source / "two" / "000.mp4").rename(source / "two" / "2 again.mp4")
    with pytest.raises(TimeloomError, match="have the same number"):
        match({"two": read_folder(source / "two"), "one": one}, "index")
    (source / "empty").mkdir()
    with pytest.raises(TimeloomError, match="holds no video"):
        read_folder(source / "empty")
