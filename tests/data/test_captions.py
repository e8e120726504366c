from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timeloom.data.captions import read_captions, read_sidecar
from timeloom.errors import TimeloomError


def pairs(path: Path, content: str | bytes) -> list[tuple[str, str, int]]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [(c.file, c.text, c.line) for c in read_captions(path)]


def test_columns_go_by_name_in_any_order(tmp_path: Path) -> None:
    expected = [("cats/1.mp4", 'A "cat", jumping.', 2), ("2.mp4", "Un chat — 猫", 3)]
    content = 'caption,license,file\n"A ""cat"", jumping.",CC0,cats/1.mp4\nUn chat — 猫,CC0,2.mp4\n'
    assert pairs(tmp_path / "a.csv", content) == expected
    assert pairs(tmp_path / "a.csv", "\ufeff" + content.replace("\n", "\r\n")) == expected
    for file in ("path", "VIDEO", "file_name"):
        for caption in ("text", " Name "):
            renamed = content.replace("file", file, 1).replace("caption", caption, 1)
            assert pairs(tmp_path / "a.csv", renamed) == expected


def test_lines_count_those_inside_quotes(tmp_path: Path) -> None:
    content = 'file,caption\n1.mp4,"two\nlines"\n\n2.mp4,\n'
    assert pairs(tmp_path / "a.csv", content) == [("1.mp4", "two\nlines", 2), ("2.mp4", "", 5)]


def test_jsonl(tmp_path: Path) -> None:
    content = '{"caption": " a cat ", "file": "1.mp4", "fps": 8}\n\n{"path": "2.mp4", "text": "line\\u2028"}\r\n'
    assert pairs(tmp_path / "a.jsonl", content) == [("1.mp4", "a cat", 1), ("2.mp4", "line", 3)]


@settings(max_examples=50, deadline=None)
@given(content=st.one_of(st.text(), st.binary()), suffix=st.sampled_from([".csv", ".jsonl"]))
def test_any_content_is_read_or_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, content: str | bytes, suffix: str
) -> None:
    path = tmp_path_factory.mktemp("captions") / f"a{suffix}"
    header = b"file,caption\n" if suffix == ".csv" else b""
    try:
        pairs(path, header + (content.encode("utf-8", "replace") if isinstance(content, str) else content))
    except TimeloomError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", "file,words\n1.mp4,x\n", "line 1: has no column caption or text or name; it has file, words"),
        ("a.csv", "id,caption\n1,x\n", "line 1: has no column file"),
        ("a.csv", "file,caption\n1.mp4,x\n2.mp4,a, b\n", "line 3: has 3 cells for 2 columns"),
        ("a.csv", "file,caption\n,x\n", "line 2: names no file"),
        ("a.csv", 'file,caption\n1.mp4,"x\n', "is not CSV"),
        ("a.csv", b"file,caption\n1.mp4,caf\xe9\n", "line 2: is not UTF-8"),
        ("a.jsonl", '{"file": "1.mp4", "caption": "x"}\n{"file": \n', "line 2: is not JSON"),
        ("a.jsonl", "[1]\n", "line 1: must be an object"),
        ("a.jsonl", '{"file": "1.mp4"}\n', "line 1: has no caption"),
        ("a.jsonl", '{"file": "1.mp4", "caption": 3}\n', "line 1: caption must be text, not 3"),
        ("a.jsonl", b"\xff\xfe", "line 1: is not UTF-8"),
        ("a.tsv", "", "csv and .jsonl"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, name: str, content: str | bytes, what: str) -> None:
    with pytest.raises(TimeloomError, match=what) as caught:
        pairs(tmp_path / name, content)
    assert str(tmp_path / name) in str(caught.value)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(TimeloomError, match=r"none.csv: there is no such file"):
        read_captions(tmp_path / "none.csv")
    assert read_sidecar(tmp_path / "1.mp4") is None


def test_sidecars(tmp_path: Path) -> None:
    (tmp_path / "a.b.txt").write_text("\ufeff A cat jumps. \r\n", encoding="utf-8")
    assert read_sidecar(tmp_path / "a.b.mp4") == "A cat jumps."
    (tmp_path / "a.b.txt").write_bytes(b"\xff")
    with pytest.raises(TimeloomError, match=r"a.b.txt, line 1: is not UTF-8"):
        read_sidecar(tmp_path / "a.b.mp4")
