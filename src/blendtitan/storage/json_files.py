"""JSON that this project wrote itself, read with suspicion: whole and of the right types, or not.

Files can be cut by a power cut, edited, or replaced by something else of the same name. What is
read here is either a value of the type that was asked for, or a ``DamagedFileError``.
"""

import json
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from blendtitan.regular_files import open_file

T = TypeVar("T")

LIMIT_BYTES = 1 << 20
"""Size above which a file is taken for damaged, where the caller names no other."""

_INT64 = range(-(1 << 63), 1 << 63)


class DamagedFileError(ValueError):
    """A file does not hold what this project writes to it."""


def read_json(path: Path, kind: type[T], *, limit_bytes: int = LIMIT_BYTES) -> T:
    """The value of type ``kind`` that a file holds.

    Raises:
        DamagedFileError: It holds something else, is larger than the limit, or is a folder.
        OSError: It cannot be read, or is not there.
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
    """The value of type ``kind`` that JSON text stands for.

    Args:
        data: The text, in UTF-8.
        kind: A dataclass, or a type made of str, int, float, bool, None, dict, tuple and Literal.

    Raises:
        DamagedFileError: It is no JSON, or stands for a value of another type.
    """
    try:
        value = json.loads(data)
    # A UnicodeDecodeError is a ValueError; arrays in arrays in arrays exhaust the stack.
    except (ValueError, RecursionError) as error:
        reason = str(error).partition("\n")[0][:100]
        raise DamagedFileError(f"is not JSON ({reason})") from error
    return checked(kind, value)


def checked(kind: type[T], value: object) -> T:
    """A value from JSON as one of type ``kind``: objects become dataclasses, arrays tuples.

    A field that is missing takes the dataclass's default. A field that the dataclass does not
    have makes the value one of another release, which is an error like any other.

    Raises:
        DamagedFileError: The value is of another type.
    """
    return cast(T, _checked(kind, value))


def _checked(kind: Any, value: object) -> Any:
    arguments: tuple[Any, ...] = get_args(kind)
    origin: Any = get_origin(kind)
    if origin is None:
        return _dataclass(kind, value) if is_dataclass(kind) else _plain(kind, value)
    if origin is Literal:
        if not any(type(value) is type(a) and value == a for a in arguments):
            raise _wrong(value, "one of " + ", ".join(map(repr, arguments)))
        return value
    if origin in (Union, types.UnionType):
        return _any_of(arguments, value)
    if origin in (dict, Mapping):
        return {
            _checked(arguments[0], name): _checked(arguments[1], held)
            for name, held in _object(value).items()
        }
    return _tuple(arguments, cast(list[Any], _of_type(list, value)))


def _plain(kind: Any, value: object) -> object:
    if kind is Any:
        return value
    if kind is float and type(value) is int:
        return float(value) if value in _INT64 else _of_type(float, value)
    # Python's bool is an int, and its int has no end.
    if kind is int and type(value) is int and value not in _INT64:
        raise _wrong(value, "an integer of 64 bits")
    if type(value) is str and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise _wrong(value, "text") from error
    return _of_type(kind, value)


def _of_type(kind: type[T], value: object) -> T:
    if type(value) is not kind:
        raise _wrong(value, _named(kind))
    return cast(T, value)


def _object(value: object) -> dict[str, Any]:
    return cast(dict[str, Any], _of_type(dict, value))


def _any_of(kinds: tuple[Any, ...], value: object) -> object:
    for kind in kinds:
        try:
            return _checked(kind, value)
        except DamagedFileError:
            continue
    raise _wrong(value, " or ".join(map(_named, kinds)))


def _tuple(kinds: tuple[Any, ...], values: list[Any]) -> tuple[Any, ...]:
    if len(kinds) == 2 and kinds[1] is ...:
        kinds = (kinds[0],) * len(values)
    if len(kinds) != len(values):
        raise _wrong(values, f"{len(kinds)} values")
    return tuple(map(_checked, kinds, values))


def _dataclass(kind: Any, value: object) -> Any:
    given = _object(value)
    hints = _hints(kind)
    unknown = given.keys() - hints
    if unknown:
        raise _wrong(given, f"no {min(unknown)!r:.40}")
    missing = [name for name, has in _defaults(kind).items() if not has and name not in given]
    if missing:
        raise _wrong(given, f"a value for {missing[0]!r}")
    try:
        return kind(**{name: _checked(hints[name], held) for name, held in given.items()})
    except DamagedFileError:
        raise
    except ValueError as error:  # A dataclass may check what it holds.
        raise DamagedFileError(str(error)) from error


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {name: hints[name] for name in _defaults(kind)}


@cache
def _defaults(kind: Any) -> dict[str, bool]:
    """Whether each field has a default."""
    return {
        field.name: field.default is not MISSING or field.default_factory is not MISSING
        for field in fields(kind)
        if field.init
    }


_NAMES: dict[Any, str] = {
    dict: "an object",
    list: "an array",
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    types.NoneType: "null",
}


def _named(kind: Any) -> str:
    """A type in the words of JSON."""
    if is_dataclass(kind):
        return "an object"
    return _NAMES.get(kind) or str(getattr(kind, "__name__", kind))


def _wrong(value: object, expected: str) -> DamagedFileError:
    return DamagedFileError(f"holds {_short(value)}, expected {expected}")


def _short(value: object) -> str:
    if isinstance(value, list | dict):
        size = len(cast(list[Any] | dict[str, Any], value))
        return f"{'an array' if isinstance(value, list) else 'an object'} of {size:,}"
    if isinstance(value, int) and value not in _INT64:
        return "a huge number"
    text = json.dumps(value) if value is None or isinstance(value, bool) else ascii(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
