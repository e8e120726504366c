import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timeloom.data.caption_table import read_csv_clips, read_jsonl_clips
from timeloom.errors import TimeloomError


def written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_columns_go_by_name_with_crlf_and_byte_order_mark(tmp_path: Path) -> None:
    rows = b'Text,Start,VIDEO,end,w\r\n"a ""b""\r\nc",0.5,x.mp4,,640\r\nd,,y.mp4,2,\r\n'
    path = written(tmp_path, "a.csv", b"\xef\xbb\xbf" + rows)
    table, ledger = read_csv_clips(path)
    assert table.to_pylist() == [
        {"file": "x.mp4", "caption": 'a "b"\r\nc', "start_s": 0.5, "end_s": None, "width": 640.0},
        {"file": "y.mp4", "caption": "d", "start_s": None, "end_s": 2.0, "width": None},
    ]
    assert ledger.found == 0


def test_rows_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    long = "word " * 2000
    rows = f"file,caption,start\na.mp4,{long},1\nb.mp4,x\nc.mp4,y,now\n".encode()
    path = written(tmp_path, "a.csv", rows + b"d,\xff,2\n")
    table, ledger = read_csv_clips(path)
    assert [len(caption) for caption in table["caption"].to_pylist()] == [10_000]
    assert dict(ledger.reasons) == {
        "row of 2 cells for 3 columns": 1,
        "row that is not UTF-8 text": 1,
        "row whose start_s is no number": 1,
    }
    assert ledger.found == 3


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b"file,words\na,b\n", "has no column caption or text or name; it has file, words"),
        (b"name,caption\na,b\n", "has no column file"),
        (b"file,file,caption\na,b,c\n", "two columns file"),
        (b'file,caption\n"a,b\n' + b"c,d\n" * 30, "a quote is not closed in the row that begins with '\"a,b'"),
    ],
)
def test_a_csv_of_another_form_is_one_sentence(tmp_path: Path, content: bytes, complaint: str) -> None:
    with pytest.raises(TimeloomError, match=complaint) as error:
        read_csv_clips(written(tmp_path, "a.csv", content))
    assert "a.csv" in str(error.value) and "\n" not in str(error.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    for read in (read_csv_clips, read_jsonl_clips):
        with pytest.raises(TimeloomError, match="no such file"):
            read(tmp_path / "none")


def test_jsonl_lines_are_clips_or_counted(tmp_path: Path) -> None:
    lines = [
        b'\xef\xbb\xbf{"File": "a.mp4", "caption": "A", "fps": 12, "h": 90}',
        b"",
        b'{"file": "b.mp4", "caption": 7}',
        b'{"caption": "B"}',
        b"{",
        b"[1]",
        b'{"file": "c.mp4", "caption": "\xff"}',
        b'{"file": "d.mp4", "caption": "\\ud800"}',
        b'{"file": "e.mp4", "caption": "E", "duration": -1}',
        b'{"file": "f.mp4", "caption": "F", "start": NaN}',
        b"[" * 100_000,
    ]
    table, ledger = read_jsonl_clips(written(tmp_path, "a.jsonl", b"\r\n".join(lines)))
    (row,) = table.to_pylist()
    assert (row["file"], row["caption"], row["fps"], row["height"], row["width"]) == ("a.mp4", "A", 12.0, 90.0, None)
    assert ledger.found == ledger.reasons.total() == 9
    assert ledger.reasons["row that is not UTF-8 text"] == 2
    assert ("a.jsonl, line 3", "line with no text for caption or text or name") in ledger.dropped


@given(st.lists(st.tuples(st.text(min_size=1), st.text()), max_size=8))
def test_any_text_comes_back_from_jsonl(rows: list[tuple[str, str]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        content = "".join(json.dumps({"path": f, "text": c}) + "\n" for f, c in rows)
        table, ledger = read_jsonl_clips(written(Path(folder), "a.jsonl", content.encode()))
    read = [(row["file"], row["caption"]) for row in table.to_pylist()]
    surrogates = sum(any("\ud800" <= c <= "\udfff" for c in f + t) for f, t in rows)
    assert len(read) == len(rows) - surrogates == len(rows) - ledger.found
    assert surrogates or read == rows
