"""``[[validation.set]]``: the tables that are accepted, and how a set is read."""

import tomllib
from typing import Any

import pytest

from blendtitan import BlendConfig
from blendtitan.errors import ConfigError
from blendtitan.settings.validation_sets import ValidationSet, validation_sets
from tests.test_docs import ROOT, code_blocks

BOOKS = {"name": "books", "path": "held-out/books"}


def test_the_example_of_the_page_on_losses_is_a_set() -> None:
    (text,) = [t for t in code_blocks(ROOT / "docs/losses.md", "toml") if "validation.set" in t]

    assert validation_sets(tomllib.loads(text)["validation"]["set"]) == (
        ValidationSet(name="books", path="held-out/books", samples=512),
    )


def test_a_set_has_a_name_and_a_path() -> None:
    assert validation_sets([BOOKS, {"name": "web", "path": "web.txt", "samples": 64}]) == (
        ValidationSet(name="books", path="held-out/books", samples=None, allow_overlap=False),
        ValidationSet(name="web", path="web.txt", samples=64, allow_overlap=False),
    )


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": "books"}, "validation.set 1: path is missing, expected name and path"),
        ({"path": "books"}, "validation.set 1: name is missing"),
        ({**BOOKS, "name": ""}, "validation.set 1: name is missing"),
        (
            {**BOOKS, "sample": 4},
            r"unknown key sample\. Did you mean samples\? The keys are name, ",
        ),
        ({**BOOKS, "samples": 0}, "samples is 0, expected a whole number of at least 1"),
        ({**BOOKS, "samples": "all"}, "samples is 'all', expected a whole number"),
        ({**BOOKS, "samples": True}, "samples is True, expected a whole number"),
        ({**BOOKS, "allow_overlap": "yes"}, "allow_overlap is 'yes', expected true or false"),
        ({**BOOKS, "path": "ftp://host/books"}, "which is a URL, expected a local path"),
    ],
)
def test_mistakes_are_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validation_sets([table])


def test_two_sets_have_two_names() -> None:
    with pytest.raises(ConfigError, match="set 2: name is 'books', as that of another"):
        validation_sets([BOOKS, {**BOOKS, "path": "elsewhere"}])


def test_every_document_of_a_set_is_read_as_the_run_reads_its_own() -> None:
    """Whatever the order of the run; sequence length, EOD and masks are those of the run."""
    run = BlendConfig(
        data_file_list="train.txt",
        seq_length=16,
        eod_token_id=2,
        eod_mask_loss=True,
        order="blendcorpus",
        train_samples=100,
        eval_samples=0,
        data_cache_path="cache",
    )
    (books,) = validation_sets([BOOKS])

    assert books.reading(run) == BlendConfig(
        data_file_list="held-out/books",
        seq_length=16,
        eod_token_id=2,
        eod_mask_loss=True,
        split="0,1,0",
        data_cache_path="cache",
    )
