"""The validator's settings and numbers; what it reads is tested with real runs."""

import math
from typing import Any

import pytest
from torchtitan.hf_datasets.text_datasets import HuggingFaceTextDataLoader

from blendtitan.corpus_progress import perplexity
from blendtitan.errors import ConfigError
from blendtitan.titan.metrics import listed
from blendtitan.titan.validator import BlendCorpusValidator


def test_it_validates_on_the_valid_split_by_default() -> None:
    loader: Any = BlendCorpusValidator.Config().dataloader

    assert loader.split_name == "valid"


def test_another_loader_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"HuggingFaceTextDataLoader\.Config, expected Blend"):
        BlendCorpusValidator.Config(dataloader=HuggingFaceTextDataLoader.Config(dataset="c4_test"))


def test_perplexity_is_the_exponential_of_the_loss() -> None:
    assert perplexity(0.0) == 1.0
    assert perplexity(math.log(50)) == pytest.approx(50)


@pytest.mark.parametrize("loss", [1e4, math.inf])
def test_perplexity_beyond_a_float_is_infinite(loss: float) -> None:
    """Training continues, and its own check finds a loss that is not finite."""
    assert perplexity(loss) == math.inf


def test_a_line_lists_corpora_up_to_a_number_and_says_how_many_more() -> None:
    few = {f"c{i}": f"{i}" for i in range(16)}
    many = few | {f"d{i}": f"{i}" for i in range(2_000)}

    assert listed({"code": "1.2", "web": "3.4"}) == "code 1.2, web 3.4"
    assert listed(few).endswith(", c15 15")
    assert listed(many).endswith(", c15 15, and 2,000 more, see the metrics")
