"""Splits: every document in exactly one of them, cut where Megatron cuts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendtitan.config import split_fractions
from blendtitan.dataset.build import document_cuts
from blendtitan.errors import ConfigError

NUMBERS = st.lists(st.floats(0, 1000), min_size=3, max_size=3).filter(lambda n: sum(n) > 0.001)


@given(num_documents=st.integers(1, 10**7), numbers=NUMBERS)
def test_ranges_cover_every_document_exactly_once(num_documents: int, numbers: list[float]) -> None:
    cuts = document_cuts(num_documents, split_fractions(",".join(map(str, numbers))))

    assert cuts[0] == 0
    assert cuts[-1] == num_documents
    assert cuts == sorted(cuts)


def megatron_cuts(num_documents: int, fractions: tuple[float, ...]) -> list[int]:
    cuts = [0]
    for fraction in fractions:
        cuts.append(cuts[-1] + round(fraction * float(num_documents)))
    excess = cuts[-1] - num_documents
    return [0, *(cut - excess for cut in cuts[1:])]


@given(num_documents=st.integers(1, 10**6), valid=st.floats(0, 0.3), test=st.floats(0, 0.3))
def test_cuts_are_those_of_megatron(num_documents: int, valid: float, test: float) -> None:
    fractions = split_fractions(f"{1 - valid - test},{valid},{test}")

    assert document_cuts(num_documents, fractions) == megatron_cuts(num_documents, fractions)


def test_a_first_split_smaller_than_the_excess_stays_empty() -> None:
    """Megatron's ranges would begin at document -1 here."""
    assert document_cuts(3, (1e-9, 0.5, 0.5)) == [0, 0, 1, 3]


@pytest.mark.parametrize("num_documents", [3, 5, 7])
def test_a_split_that_is_given_nothing_has_nothing(num_documents: int) -> None:
    """The documents left over by rounding are not lost to a split that nobody reads."""
    cuts = document_cuts(num_documents, split_fractions("0,50,50"))

    assert cuts[1] == 0
    assert cuts[3] == num_documents


@pytest.mark.parametrize(
    ("num_documents", "cuts"),
    [(1, [0, 1, 1, 1]), (2, [0, 2, 2, 2]), (50, [0, 50, 50, 50]), (100, [0, 98, 99, 100])],
)
def test_a_small_shard_is_all_for_training(num_documents: int, cuts: list[int]) -> None:
    assert document_cuts(num_documents, split_fractions("98,1,1")) == cuts


@pytest.mark.parametrize(
    "text",
    ["", "a,b,c", "0,0,0", "-1,2,0", "nan,1,1", "inf", "1,inf,1", "1e308,1e308,1", "1,,1", "1e999"],
)
def test_an_invalid_split_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected three finite numbers of at least 0"):
        split_fractions(text)


def test_two_numbers_are_refused_with_the_three_that_mean_the_same() -> None:
    """They might be train and valid, or someone forgot one: 90,20 is not 90 % of anything."""
    with pytest.raises(
        ConfigError, match=r'which has 2 numbers\. .* Write "90,20,0" to have no te'
    ):
        split_fractions("90,20")
    with pytest.raises(ConfigError, match="which has 4 numbers"):
        split_fractions("98,1,1,1")


def test_one_number_gives_everything_to_train() -> None:
    assert split_fractions("100") == (1.0, 0.0, 0.0)


def test_numbers_need_not_be_whole_nor_sum_to_anything() -> None:
    assert split_fractions("969, 30, 1") == (0.969, 0.03, 0.001)
    assert split_fractions("0.75,0.25,0") == (0.75, 0.25, 0.0)
