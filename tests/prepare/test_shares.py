import math

import pytest

from blendtitan.errors import ConfigError
from blendtitan.prepare.mix import MixConfig, corpus_epochs, horizon_from_steps, parse_numbers

TOKENS = {"code": 100, "web": 900, "books": 400}


def shares(config: MixConfig) -> dict[str, float]:
    epochs = corpus_epochs(TOKENS, config)
    weights = {name: epochs[name] * count for name, count in TOKENS.items()}
    return {name: weight / sum(weights.values()) for name, weight in weights.items()}


def test_an_unnamed_corpus_is_read_once() -> None:
    config = MixConfig(epochs={"code": 2.5}, tokens={"web": 90.0})

    assert corpus_epochs(TOKENS, config) == {"code": 2.5, "web": 0.1, "books": 1.0}


def test_corpora_without_a_share_divide_the_rest_by_their_tokens() -> None:
    expected = {"code": 0.35, "web": 0.65 * 900 / 1300, "books": 0.65 * 400 / 1300}

    assert shares(MixConfig(shares={"code": 0.35})) == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 5.0, 1e9])
def test_a_temperature_divides_by_a_power_of_the_tokens(temperature: float) -> None:
    """1 divides by tokens, 2 by their square root, and a very high one evenly."""
    powers = {name: count ** (1 / temperature) for name, count in TOKENS.items()}
    expected = {name: power / math.fsum(powers.values()) for name, power in powers.items()}

    assert shares(MixConfig(temperature=temperature)) == pytest.approx(expected)


def test_a_temperature_divides_the_rest_after_the_shares() -> None:
    found = shares(MixConfig(shares={"code": 0.5}, temperature=2))

    assert found == pytest.approx({"code": 0.5, "web": 0.5 * 30 / 50, "books": 0.5 * 20 / 50})


def test_a_low_temperature_of_a_large_corpus_does_not_overflow() -> None:
    epochs = corpus_epochs({"a": 10**13, "b": 10**12}, MixConfig(temperature=0.01))

    assert epochs["a"] == pytest.approx(1.1)


def test_a_pass_over_a_blend_of_shares_reads_the_total_number_of_tokens() -> None:
    epochs = corpus_epochs(TOKENS, MixConfig(shares={"code": 0.5}))

    assert sum(epochs[name] * TOKENS[name] for name in TOKENS) == pytest.approx(1400)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"code": 0.5, "web": 0.5}, "sum to 1, which leaves nothing for books"),
        ({"code": 0.5, "web": 0.6}, "sum to 1.1, which leaves nothing for books"),
        ({"code": 0.5, "web": 0.2, "books": 0.2}, "every corpus has one, and they sum to 0.9"),
    ],
)
def test_shares_are_those_of_one_blend(shares: dict[str, float], message: str) -> None:
    """Silent scaling would change the requested shares."""
    with pytest.raises(ConfigError, match=message):
        corpus_epochs(TOKENS, MixConfig(shares=shares))


def test_shares_of_all_corpora_sum_to_one_up_to_rounding() -> None:
    corpus_epochs(TOKENS, MixConfig(shares={"code": 0.1, "web": 0.2, "books": 0.7}))


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": {"code": 1.0}, "shares": {"web": 0.5}},
        {"tokens": {"code": 1.0}, "temperature": 2.0},
    ],
)
def test_the_two_ways_exclude_each_other(settings: dict[str, dict[str, float]]) -> None:
    with pytest.raises(ConfigError, match="cannot be combined with --shares"):
        MixConfig(**settings)  # pyright: ignore[reportArgumentType]


def test_a_corpus_has_epochs_or_tokens() -> None:
    with pytest.raises(ConfigError, match="'code' has both --epochs and --tokens"):
        MixConfig(epochs={"code": 1.0}, tokens={"code": 1.0})


@pytest.mark.parametrize("option", ["epochs", "tokens", "shares"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_numbers_are_finite_and_above_0(option: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"--{option}: corpus 'code' .* a finite number above 0"):
        MixConfig(**{option: {"code": value}})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("option", ["temperature", "horizon_tokens"])
def test_temperature_and_horizon_are_above_0(option: str) -> None:
    with pytest.raises(ConfigError, match="expected a finite number above 0"):
        MixConfig(**{option: 0.0})


@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_a_cap_is_at_least_0(value: float) -> None:
    with pytest.raises(ConfigError, match="--max-epochs is"):
        MixConfig(max_epochs=value)


@pytest.mark.parametrize("option", ["epochs", "tokens", "shares"])
def test_an_unknown_corpus_is_an_error_that_names_the_nearest(option: str) -> None:
    def config(corpus: str) -> MixConfig:
        return MixConfig(**{option: {corpus: 0.5}})  # pyright: ignore[reportArgumentType]

    with pytest.raises(ConfigError, match=rf"--{option}: .*'cod'. Did you mean 'code'\?"):
        corpus_epochs(TOKENS, config("cod"))
    with pytest.raises(ConfigError, match=r"no corpus 'xyz'. The corpora are books, code, web"):
        corpus_epochs(TOKENS, config("xyz"))


def test_numbers_are_parsed_from_words() -> None:
    assert parse_numbers("--epochs", ["code=2", "a=b=1e9"]) == {"code": 2.0, "a=b": 1e9}


@pytest.mark.parametrize("word", ["code", "code=", "=2", "code=two", "code=nan"])
def test_a_word_of_another_form_is_an_error(word: str) -> None:
    with pytest.raises(ConfigError, match=r"--tokens: found .* expected CORPUS=NUMBER"):
        parse_numbers("--tokens", [word])


def test_a_corpus_named_twice_is_an_error() -> None:
    with pytest.raises(ConfigError, match="--shares: corpus 'code' is named twice"):
        parse_numbers("--shares", ["code=1", "code=2"])


def test_a_horizon_in_steps_is_steps_times_batch_times_length() -> None:
    assert horizon_from_steps(None, 10, 4, 256) == 10_240
    assert horizon_from_steps(5e6, None, None, None) == 5e6
    assert horizon_from_steps(None, None, None, None) is None


def test_a_horizon_is_given_once_and_completely() -> None:
    with pytest.raises(ConfigError, match="in tokens and in steps"):
        horizon_from_steps(1e9, 10, 4, 256)
    with pytest.raises(ConfigError, match="needs --horizon-steps, --seq-length too"):
        horizon_from_steps(None, None, 4, None)
