import random
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timeloom.curate.sampling import check_shares, quotas, sample
from timeloom.errors import TimeloomError

ITEMS = [
    (f"{label}{number}.mp4", label) for label, count in (("a", 60), ("b", 30), ("c", 10)) for number in range(count)
]


def labels_of(chosen):
    return Counter(label for _, label in chosen)


def test_shares_are_met_exactly():
    assert labels_of(sample(ITEMS, 20).chosen) == {"a": 12, "b": 6, "c": 2}
    assert labels_of(sample(ITEMS, 21, "equal").chosen) == {"a": 7, "b": 7, "c": 7}
    assert labels_of(sample(ITEMS, 30, {"a": 1, "b": 2}).chosen) == {"a": 10, "b": 20}


def test_what_a_label_lacks_the_others_give():
    result = sample(ITEMS, 60, "equal")
    assert labels_of(result.chosen) == {"a": 25, "b": 25, "c": 10}
    assert result.left_out == 40
    assert len(sample(ITEMS, 1000).chosen) == len(sample(ITEMS, None).chosen) == 100


def test_the_seed_decides_and_the_order_does_not():
    shuffled = random.Random(0).sample(ITEMS, len(ITEMS))
    assert sample(iter(shuffled), 20, seed=1).chosen == sample(ITEMS, 20, seed=1).chosen
    assert sample(ITEMS, 20, seed=1).chosen != sample(ITEMS, 20, seed=2).chosen
    small, large = (set(sample(ITEMS, count, "equal").chosen) for count in (9, 18))
    assert small < large


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.integers(0, 50), st.integers(0, 20)), min_size=1), st.data()
)
def test_quotas_add_up_and_follow_the_weights(labels, data):
    available = {label: have for label, (have, _) in labels.items()}
    weights = {label: Fraction(weight) for label, (_, weight) in labels.items()}
    count = data.draw(st.integers(0, 200))
    given_out = quotas(available, weights, count)
    reachable = sum(have for label, have in available.items() if weights[label])
    assert sum(given_out.values()) == min(count, reachable)
    assert all(0 <= given_out[label] <= available[label] for label in available)
    open_labels = [label for label in available if weights[label] and given_out[label] < available[label]]
    for one in open_labels:
        for other in open_labels:  # those that had enough have it in proportion, to within a rounding of each
            due = weights[one] * given_out[other] / weights[other]
            assert abs(given_out[one] - due) <= 1 + weights[one] / weights[other]


def test_wrong_shares_are_refused():
    with pytest.raises(TimeloomError, match="Did you mean 'b'"):
        sample(ITEMS, 10, {"bb": 1.0})
    for wrong in ({}, {"a": -1.0}, {"a": 0.0}, {"a": float("nan")}):
        with pytest.raises(TimeloomError, match="shares"):
            check_shares(wrong)
