"""Figures of one use of an engine over the rounds, and how they compare round by round."""

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

Result = Mapping[str, Any]

NAMES = {
    "limit two": "limit: two new tensors",
    "limit one": "limit: one tensor, two views",
    "floor": "floor: header of every `.idx`",
    "ours": "**blendtitan**",
    "ours kept": "**blendtitan**, catalog kept",
    "ours open": "**blendtitan**, all files open",
    "megatron": "megatron-core",
    "megatron fast": "megatron-core, fast-cache flags",
    "olmo": "OLMo-core",
    "olmo threads": "OLMo-core, 4 threads",
    "lit": "litdata",
    "mosaic": "mosaicml-streaming",
    "titan": "torchtitan, from text",
}

Rounds = dict[int, float]
"""Round to figure."""


def chosen(results: Iterable[Result], **fields: Any) -> list[Result]:
    """The results whose fields have these values."""
    return [
        result for result in results if all(result[name] == value for name, value in fields.items())
    ]


def uses(results: Iterable[Result]) -> list[str]:
    """Keys of ``NAMES`` that the results have, in their order."""
    present = {use_of(result) for result in results}
    return [use for use in NAMES if use in present]


def use_of(result: Result) -> str:
    """Key of ``NAMES``."""
    return f"{result['engine']} {result['variant']}".strip()


def rounds_of(results: Iterable[Result], use: str, figure: str, **fields: Any) -> Rounds:
    """A figure of one use by round; rounds in which it failed are missing."""
    return {
        result["round"]: result[figure]
        for result in chosen(results, **fields)
        if use_of(result) == use and figure in result
    }


def ratio(of: Rounds, to: Rounds) -> float | None:
    """The median of the ratios of equal rounds; None where there are none."""
    ratios = [of[round_id] / to[round_id] for round_id in of if round_id in to]
    return median(ratios) if ratios else None


def spread(rounds: Rounds, *, scale: float = 1.0) -> str:
    """Median, minimum and maximum, as cells of a table."""
    if not rounds:
        return "failed | | "
    values = [value * scale for value in rounds.values()]
    return " | ".join(number(value) for value in (median(values), min(values), max(values)))


def number(value: float | None) -> str:
    """Three digits that count, without an exponent."""
    if value is None:
        return ""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.4f}"
