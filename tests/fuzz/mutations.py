"""Inputs that are nearly right: valid bytes, texts and JSON with a few places changed."""

import json
import re
from typing import Any

import hypothesis.strategies as st

NUMBERS = st.sampled_from(
    [0, 1, 2, 4, 8, -1, -2, 255, 2**15, 2**31 - 1, -(2**31), 2**32, 2**53, 2**63 - 1, -(2**63)]
)

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner,
                                                                max_size=3),
    max_leaves=6,
)  # fmt: skip

DEEP = st.sampled_from(["[" * 2000, '{"a":' * 2000, "1" * 5000, "[" * 900 + "]" * 900])
"""Texts that break parsers by their depth or by the length of a number."""


@st.composite
def mutated_bytes(draw: st.DrawFn, valid: bytes) -> bytes:
    """Bytes with up to five places overwritten, cut out, repeated or extended."""
    data = bytearray(valid)
    for _ in range(draw(st.integers(1, 5))):
        at, size = draw(st.integers(0, len(data))), draw(st.sampled_from([1, 2, 4, 8, 34]))
        match draw(st.sampled_from(["number", "noise", "cut", "repeat", "truncate", "extend"])):
            case "number":
                number = draw(NUMBERS) % 2 ** (8 * size)
                data[at : at + size] = number.to_bytes(size, "little")
            case "noise":
                data[at : at + size] = draw(st.binary(min_size=size, max_size=size))
            case "cut":
                del data[at : at + size]
            case "repeat":
                data[at:at] = data[at : at + size]
            case "truncate":
                del data[at:]
            case _:
                data += draw(st.binary(max_size=40))
    return bytes(data)


@st.composite
def mutated_json(draw: st.DrawFn, valid: str) -> str:
    """JSON text with up to three values replaced, removed or added, anywhere in the tree."""
    root = [json.loads(valid)]
    for _ in range(draw(st.integers(1, 3))):
        node: Any = root
        key: Any = 0
        while isinstance(node[key], dict | list) and node[key] and draw(st.integers(0, 5)):
            node = node[key]
            key = draw(st.sampled_from(list(node) if isinstance(node, dict) else range(len(node))))
        match draw(st.sampled_from(["replace", "remove", "rename"])):
            case "remove" if node is not root:
                del node[key]
            case "rename" if isinstance(node, dict):
                node[draw(st.text(max_size=5))] = node.pop(key)
            case _:
                node[key] = draw(JSON_VALUES)
    return json.dumps(root[0])


def damaged_json(valid: str) -> st.SearchStrategy[bytes]:
    """JSON with other values, JSON with other bytes, no JSON at all."""
    return (
        mutated_json(valid).map(str.encode)
        | mutated_bytes(valid.encode())
        | DEEP.map(str.encode)
        | st.binary(max_size=60)
    )


@st.composite
def mutated_lines(draw: st.DrawFn, valid: str, words: st.SearchStrategy[str]) -> str:
    """Text with words and lines replaced, repeated, removed or swapped."""
    lines = valid.split("\n")
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        match draw(st.sampled_from(["word", "line", "repeat", "remove"])):
            case "word":
                parts = re.split(r"(\s+)", lines[at])
                parts[draw(st.integers(0, len(parts) - 1))] = draw(words)
                lines[at] = "".join(parts)
            case "line":
                lines[at] = " ".join(draw(st.lists(words, max_size=4)))
            case "repeat":
                lines.insert(at, draw(st.sampled_from(lines)))
            case _:
                del lines[at]
                lines = lines or [""]
    return "\n".join(lines)
