import pytest
from pydantic import ValidationError

from timeloom.curate.filters import FILTERS, Bounds, reasons_of
from timeloom.curate.rows import CLIP_COLUMNS

ROW = {
    "duration_s": 5.0,
    "height": 720,
    "static_overlay": None,
    "caption": "a red car",
    "caption_words": 3,
    "clip_similarity": 0.2,
}


def test_every_filter_is_a_column():
    assert set(FILTERS) <= set(CLIP_COLUMNS)


@pytest.mark.parametrize(
    ("filters", "reasons"),
    [
        ({}, []),
        ({"duration_s": Bounds(min=5, max=5)}, []),
        ({"duration_s": Bounds(max=4.5), "height": Bounds(min=1080)}, ["duration_s above 4.5", "height below 1080"]),
        ({"static_overlay": Bounds(max=0.1)}, []),
        ({"caption_words": Bounds(min=4)}, ["caption_words below 4"]),
        ({"clip_similarity": Bounds(min=0.25)}, ["clip_similarity below 0.25"]),
    ],
)
def test_reasons(filters, reasons):
    assert reasons_of(ROW, filters, captioned=True) == reasons


def test_filters_on_captions_wait_for_them():
    filters = {"caption_words": Bounds(min=4), "clip_similarity": Bounds(min=0.25)}
    without = {**ROW, "caption": "", "caption_words": 0, "clip_similarity": None}
    assert reasons_of(without, filters, captioned=False) == []
    assert reasons_of(without, filters, captioned=True) == ["no caption"]
    assert reasons_of({**ROW, "clip_similarity": None}, filters, captioned=True)[-1] == "clip_similarity is not known"
    assert reasons_of({**without, "height": 100}, {"height": Bounds(min=720)}, captioned=True) == ["height below 720"]


def test_bounds_in_the_wrong_order():
    with pytest.raises(ValidationError, match="min 3 is above max 2"):
        Bounds(min=3, max=2)
