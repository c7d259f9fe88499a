"""Read the keys of older TOML files, by the tables of ``old_keys.py``."""

from collections.abc import Iterable, Iterator
from typing import Any

from blendtitan.errors import ConfigError
from blendtitan.settings.old_keys import (
    CONVERSIONS,
    MOVED_SECTIONS,
    REMOVED,
    RENAMED,
    TRANSLATED,
)
from blendtitan.settings.suggestions import key_advice, meaning
from blendtitan.settings.toml import COMMAND_LINE, Hints, Values, listed, toml_of
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

_FLOAT8 = "quantize.linear.float8"
_RECIPE = f"{_FLOAT8}.recipe_name"
_ONLY_BY_TENSOR = {
    f"{_FLOAT8}.enable_fsdp_float8_all_gather",
    f"{_FLOAT8}.precompute_float8_dynamic_scale_for_fsdp",
}
_ON = ("true", '"dynamic"', '"experts"', '["experts"]')
_OFF = ("false", '""', "[]")

Named = list[tuple[str, str, Any]]
"""Keys as they are spelled, their present names and their values."""


def present_keys(pairs: Iterable[tuple[str, Any]], hints: Hints, source: str) -> Named:
    """Give the keys of a file, or of a command line, their present names.

    Removed keys without effect are left out. A warning lists those that had an effect in an older
    release.

    Raises:
        ConfigError: A key is unknown, or had an effect that no present key has.
    """
    given = dict(pairs)
    if source != COMMAND_LINE and _RECIPE in hints:
        _scale_by_tensor(given)
    unused = [*_overruled(given), *_read_conversions(given, source)]
    named: Named = []
    for key, value in given.items():
        name, present = _translated(key, value)
        if key == "model.converters" and isinstance(listed(present), list):
            present = _converters(given)
        if name in hints:
            named.append((key, name, present))
        elif not _is_satisfied(key, name, value):
            unused.append(_reason_unused(key, name, given, hints, source))
    if unused:
        logger.warning("%s: these keys have no effect: %s", source, "; ".join(unused))
    return named


def present_name(key: str) -> str:
    """The present spelling of a key; the key itself if it has no other."""
    for old, new in MOVED_SECTIONS.items():
        if key.startswith(f"{old}."):
            return new + key.removeprefix(old)
    return RENAMED.get(key, key)


def is_old_section(section: str) -> bool:
    """Whether an older release had a section of this name."""
    keys = [*MOVED_SECTIONS, *RENAMED, *TRANSLATED, *CONVERSIONS, *REMOVED]
    return section in {key.partition(".")[0] for key in keys}


def _translated(key: str, value: Any) -> tuple[str, Any]:
    name, values = TRANSLATED.get(key, (present_name(key), {}))
    return name, values.get(value, value) if isinstance(value, bool) else value


def _scale_by_tensor(given: Values) -> None:
    """Keep the recipe of a file for TorchTitan 0.1 or 0.2 that names none."""
    names = {present_name(key) for key in given}
    is_old = (
        names & _ONLY_BY_TENSOR
        or CONVERSIONS.keys() & given.keys()
        or any(key.startswith("float8.") for key in given)
        or "float8" in _listed_converters(given)
    )
    if is_old and _RECIPE not in names:
        given[_RECIPE] = "tensorwise"


def _overruled(given: Values) -> Iterator[str]:
    """Drop what some files of TorchTitan kept beside the section that replaced it."""
    old, new = given.get("training.compile"), given.get("compile.enable")
    if isinstance(old, bool) and isinstance(new, bool) and old != new:
        del given["training.compile"]
        yield f"training.compile (compile.enable = {toml_of(new)} replaces it)"


def _read_conversions(given: Values, source: str) -> Iterator[str]:
    """Replace switches of float8 by entries of ``model.converters``."""
    for key in [key for key in given if key in CONVERSIONS]:
        entry, value = CONVERSIONS[key], toml_of(given.pop(key))
        converters = _converters(given)
        contradicts = value in _OFF and entry in converters and entry == _FLOAT8
        if source == COMMAND_LINE or contradicts or value not in (*_ON, *_OFF):
            raise ConfigError(
                f"{source}: {key} is {value}, but model.converters decides about it. "
                f"Delete {key}, and list {entry!r} in model.converters if you want it."
            )
        if value in _OFF or entry in converters:
            continue
        if entry == _FLOAT8 or _FLOAT8 in converters:
            given["model.converters"] = [*converters, entry]
        else:
            yield f"{key} ({_FLOAT8!r} is not in model.converters)"


def _listed_converters(given: Values) -> list[Any]:
    found = listed(given.get("model.converters", []))
    return found if isinstance(found, list) else []


def _converters(given: Values) -> list[Any]:
    return [*map(_converter, _listed_converters(given))]


def _converter(entry: Any) -> Any:
    """The present name of a section that ``model.converters`` lists."""
    return MOVED_SECTIONS.get(entry, present_name(entry)) if isinstance(entry, str) else entry


def _is_satisfied(key: str, name: str, value: Any) -> bool:
    """Whether the value of a removed key matches the present behaviour."""
    removed = REMOVED.get(key) or REMOVED.get(name)
    return removed is not None and value in removed.without_effect


def _reason_unused(key: str, name: str, given: Values, hints: Hints, source: str) -> str:
    """A removed key, and why it changes nothing here.

    Raises:
        ConfigError: It would have changed the run, or was never a key.
    """
    removed = REMOVED.get(key) or REMOVED.get(name)
    if removed is None and not meaning(key, hints):
        removed = REMOVED.get(key.partition(".")[0])
    if removed is None:
        raise ConfigError(f"{source}: unknown key {key}. {key_advice(key, hints)}")
    if removed.is_only_faster:
        return f"{key} ({removed.instead})"
    converter = name.rpartition(".")[0]
    if not {source, converter} & {COMMAND_LINE, *_converters(given)} and "quantize." in name:
        return f"{key} ({converter!r} is not in model.converters; {removed.instead})"
    raise ConfigError(
        f"{source}: {key} is {given[key]!r}, but TorchTitan 0.3 has no such setting: "
        f"{removed.instead}. Delete it."
    )
