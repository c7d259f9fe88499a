"""Segments: new shares, while every corpus continues from its current position."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from blendtitan.order.blend import BlendOrder, Segment

WEIGHTS = st.dictionaries(st.sampled_from("abcd"), st.floats(0.1, 10), min_size=1)


@given(
    history=st.lists(WEIGHTS, min_size=1, max_size=4), lens=st.lists(st.integers(1, 60), min_size=4)
)
def test_draws_of_each_corpus_continue_over_any_history(
    history: list[dict[str, float]], lens: list[int]
) -> None:
    """No draw of a corpus is skipped or repeated when shares change."""
    firsts = np.concatenate([[0], np.cumsum(lens)])[: len(history)]
    order = BlendOrder.build([Segment(int(f), w) for f, w in zip(firsts, history, strict=True)])
    corpora, draws = order.draws(np.arange(300))
    for number in range(len(order.corpora)):
        own = draws[corpora == number]

        assert own.tolist() == list(range(len(own)))


def test_a_corpus_that_a_segment_does_not_name_is_not_drawn_in_it() -> None:
    order = BlendOrder.build([Segment(0, {"a": 1.0, "b": 1.0}), Segment(10, {"b": 1.0, "c": 3.0})])
    corpora, _ = order.draws(np.arange(50))

    assert order.corpora == ("a", "b", "c")
    assert set(corpora[:10].tolist()) == {0, 1}
    assert set(corpora[10:].tolist()) == {1, 2}


def test_the_order_of_naming_does_not_matter() -> None:
    one = BlendOrder.build([Segment(0, {"b": 1.0, "a": 2.0})]).draws(np.arange(30))
    other = BlendOrder.build([Segment(0, {"a": 2.0, "b": 1.0})]).draws(np.arange(30))

    assert [x.tolist() for x in one] == [x.tolist() for x in other]


@given(
    history=st.lists(WEIGHTS, min_size=1, max_size=4),
    lens=st.lists(st.integers(1, 60), min_size=4),
    slot=st.integers(0, 300),
)
def test_draws_before_a_slot_are_those_counted_one_by_one(
    history: list[dict[str, float]], lens: list[int], slot: int
) -> None:
    firsts = np.concatenate([[0], np.cumsum(lens)])[: len(history)]
    order = BlendOrder.build([Segment(int(f), w) for f, w in zip(firsts, history, strict=True)])
    corpora, _ = order.draws(np.arange(slot))
    counted = np.bincount(corpora, minlength=len(order.corpora))

    assert order.draws_before(slot).tolist() == counted.tolist()
