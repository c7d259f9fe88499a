"""Values of keys: whether they fit a type, how a text gives one, and how TOML spells one."""

import json
import re
import tomllib
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

NONE = "none"
"""What stands for None. TOML has no value for it."""


def value_of(text: str, hint: Any) -> Any:
    """The value that a text of the command line stands for, where a type is expected."""
    kinds = _alternatives(hint)
    if any(kind is str or get_origin(kind) is Literal for kind in kinds):
        return text
    if any(get_origin(kind) is list for kind in kinds) and not text.startswith("["):
        return text.split(",")
    try:
        return tomllib.loads(f"value = {text.lower() if bool in kinds else text}")["value"]
    except (ValueError, RecursionError):
        return text  # the check of its type refuses it


def none_of(value: Any, hint: Any) -> Any:
    """None where the value is the word for it, and may be; else the value."""
    is_none = isinstance(value, str) and value.lower() == NONE
    return None if is_none and NoneType in _alternatives(hint) else value


def fits(value: Any, hint: Any) -> bool:
    """Whether a value has a type. Whole numbers are numbers; truth values are not."""
    kinds = _alternatives(hint)
    if len(kinds) > 1:
        return any(fits(value, kind) for kind in kinds)
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is list:
        (item,) = get_args(hint)
        return isinstance(value, list) and all(fits(entry, item) for entry in value)
    if get_origin(hint) is dict:
        return isinstance(value, dict)
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


_SPELLED = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    NoneType: "none",
}


def described(hint: Any) -> str:
    """The values that fit a type, for an error."""
    return " or ".join(_descriptions(hint))


def _descriptions(hint: Any) -> list[str]:
    kinds = _alternatives(hint)
    if len(kinds) > 1:
        return [text for kind in kinds for text in _descriptions(kind) if kind is not NoneType]
    if get_origin(hint) is Literal:
        return [repr(choice) for choice in get_args(hint)]
    if get_origin(hint) is list:
        (item,) = get_args(hint)
        if get_origin(item) is dict:
            return ["a list of tables"]
        return [f"a list of {described(item)}" if get_origin(item) is Literal else "a list"]
    return [_SPELLED[hint]]


def toml_of(value: Any) -> str:
    """A value as TOML spells it."""
    match value:
        case None:
            return f'"{NONE}"'
        case bool():
            return str(value).lower()
        case str():  # TOML's escapes are JSON's, and one more
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case list():
            return f"[{', '.join(map(toml_of, value))}]"
        case dict():
            pairs = (f"{_toml_key(key)} = {toml_of(entry)}" for key, entry in value.items())
            return f"{{ {', '.join(pairs)} }}"
        case _:
            return repr(value)


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml_of(key)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
