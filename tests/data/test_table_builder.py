from pathlib import Path

import pyarrow as pa
import pytest

from timeloom.data import Ledger, table_builder
from timeloom.data.table_builder import TEXT, TableBuilder, cache_folder, file_identity, kept_table


def build(rows: int) -> tuple[pa.Table, Ledger]:
    builder = TableBuilder({"file": TEXT})
    for row in range(rows):
        builder.add(file=f"é{row}")
    builder.refuse("bad", "because")
    return builder.finish()


def test_rows_come_back_in_order_across_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_builder, "CHUNK_ROWS", 3)
    for rows in (0, 2, 3, 7):
        table, ledger = build(rows)
        assert table["file"].to_pylist() == [f"é{row}" for row in range(rows)]
        assert ledger.summary() == "1 found, 0 used, 1 dropped (1 because)"


def test_big_tables_are_kept_under_their_identity(cache: Path) -> None:
    assert cache_folder() == cache
    for _ in range(2):
        table, ledger = kept_table(("a", 1), lambda: build(4), at_least=4)
        assert table["file"].to_pylist()[3] == "é3" and ledger.dropped == [("bad", "because")]
    kept, ledger = kept_table(("a", 1), lambda: pytest.fail("built again"), at_least=4)
    assert kept.num_rows == 4 and ledger.reasons == {"because": 1} and ledger.found == 1
    assert kept_table(("a", 2), lambda: build(5), at_least=9)[0].num_rows == 5
    assert len(list((cache / "tables").iterdir())) == 1  # too small to keep


def test_a_kept_table_that_is_damaged_is_made_again(cache: Path) -> None:
    kept_table(("a",), lambda: build(4), at_least=0)
    (path,) = (cache / "tables").iterdir()
    for content in (b"", b"ARROW1", path.read_bytes()[:-20]):
        path.write_bytes(content)
        assert kept_table(("a",), lambda: build(4), at_least=0)[0].num_rows == 4
        assert kept_table(("a",), lambda: pytest.fail("built again"), at_least=0)[0].num_rows == 4


def test_a_cache_that_cannot_be_written_costs_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TIMELOOM_CACHE", str(tmp_path / "file"))
    assert kept_table(("a",), lambda: build(4), at_least=0)[0].num_rows == 4


def test_a_changed_file_has_another_identity(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("1")
    before = file_identity(path)
    assert before == file_identity(path)
    path.write_text("22")
    assert before != file_identity(path)
