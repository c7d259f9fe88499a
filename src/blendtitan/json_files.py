"""JSON files of this project, checked against types."""

from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from blendtitan.files import DamagedFileError, decode_json, open_file

T = TypeVar("T")

LIMIT_BYTES = 1 << 20
"""Size limit of JSON files, unless the caller names another."""

_INT64 = range(-(1 << 63), 1 << 63)


def read_json(path: Path, kind: type[T], *, limit_bytes: int = LIMIT_BYTES) -> T:
    """The value of type ``kind`` that a JSON file holds; see ``parse_json``.

    Raises:
        DamagedFileError: It does not hold such a value, is larger than the limit, or is a folder.
        OSError: It is missing or cannot be read.
    """
    try:
        with open_file(path) as file:
            data = file.read(limit_bytes + 1)
    except (IsADirectoryError, NotADirectoryError) as error:
        raise DamagedFileError(f"{path}: {error.strerror}, expected a file") from error
    if len(data) > limit_bytes:
        raise DamagedFileError(f"{path}: is larger than {limit_bytes:,} bytes")
    try:
        return parse_json(data, kind)
    except DamagedFileError as error:
        raise DamagedFileError(f"{path}: {error}") from error


def parse_json(data: bytes, kind: type[T]) -> T:
    """Parse a value of type ``kind`` from JSON text.

    Args:
        data: The text, in UTF-8.
        kind: A dataclass, or a type made of str, int, float, bool, None, dict, tuple and Literal.
            Integers have 64 bits. An unknown field is an error, because another release wrote
            the value.

    Raises:
        DamagedFileError: The text is not JSON, or holds a value of another type.
    """
    return checked(kind, decode_json(data, object))


def checked(kind: type[T], value: object) -> T:
    """Convert a value from JSON to type ``kind``; errors as ``parse_json``."""
    try:
        made = msgspec.convert(value, kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise DamagedFileError(f"has unexpected content ({error})") from error
    _check_known(value, msgspec.to_builtins(made))
    return made


def _check_known(value: object, known: object) -> None:
    """Check that ``known`` has all keys of ``value``, and that no integer is too large."""
    if isinstance(value, int) and value not in _INT64:
        raise DamagedFileError("holds an integer of more than 64 bits")
    if isinstance(value, list):
        for one, other in zip(cast("list[Any]", value), cast("list[Any]", known), strict=True):
            _check_known(one, other)
    if isinstance(value, dict):
        for name, one in cast("dict[str, Any]", value).items():
            if name not in cast("dict[str, Any]", known):
                raise DamagedFileError(f"holds {name!r:.40}, which this release does not know")
            _check_known(one, cast("dict[str, Any]", known)[name])
