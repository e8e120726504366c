import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from timeloom.data import json_file
from timeloom.data.json_file import members, seconds
from timeloom.errors import TimeloomError

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@example({"\x1f": 10.0}, 17, 2)
@given(st.dictionaries(st.text(), values, max_size=5), st.integers(1, 40), st.sampled_from([None, 2]))
def test_members_come_one_by_one_however_the_file_is_cut(content: dict, block: int, indent: int | None) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_file, "BLOCK_CHARACTERS", block)
        path = Path(folder) / "a.json"
        path.write_text(json.dumps(content, indent=indent), encoding="utf-8")
        assert dict(members(path)) == content


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"a": 1', b'{"a" 1}', b'{"a": \xff}', b'{"a": ' + b"[" * 100_000])
def test_a_file_that_is_no_object_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(TimeloomError, match=r"a\.json"):
        list(members(tmp_path / "a.json"))


def test_clock_times_are_seconds() -> None:
    assert [seconds(text) for text in ("0:00:05.639", "01:02:03.5", "02:03", " 1:02:03 ")] == [5.639, 3723.5, 123, 3723]
    for wrong in ("", "5", "1:2:3:4", None, 7, "a:b", "9" * 400 + ":00:00"):
        with pytest.raises(ValueError, match=r"no time|a time beyond"):
            seconds(wrong)
