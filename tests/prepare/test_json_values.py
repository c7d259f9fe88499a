import itertools
import json
import random

import pytest

from blendtitan.errors import InputError
from blendtitan.prepare.json_text import split_values


def random_value(generator: random.Random, depth: int = 0) -> object:
    kind = generator.randrange(8 if depth < 3 else 3)
    if kind == 0:
        return "".join(generator.choices('ab"\\{}[],\n \u00e9', k=generator.randrange(8)))
    if kind < 3:
        return generator.choice([None, 1.5, -3])
    items = [random_value(generator, depth + 1) for _ in range(generator.randrange(3))]
    return items if kind < 5 else {f'"{at}\\': item for at, item in enumerate(items)}


def in_blocks(generator: random.Random, content: bytes) -> list[bytes]:
    cuts = sorted(generator.choices(range(len(content) + 1), k=generator.randrange(6)))
    return [content[a:b] for a, b in itertools.pairwise([0, *cuts, len(content)])]


@pytest.mark.parametrize("indent", [None, 0, 2])
def test_values_of_arrays_and_one_after_the_other_are_found(indent: int | None) -> None:
    """Compared with the standard library, on random values in random blocks."""
    generator = random.Random(indent)
    for _ in range(300):
        values = [random_value(generator) for _ in range(generator.randrange(4))]
        objects = [{"a": value} for value in values]
        array = json.dumps(values, indent=indent, ensure_ascii=generator.random() < 0.5).encode()
        row = " ".join(json.dumps(value, indent=indent) for value in objects).encode()
        for content, expected in ((array, values), (row, objects)):
            blocks = in_blocks(generator, content)
            found = list(split_values(blocks, max_bytes=10**6, in_arrays=True))

            parts = [part for _, part in found if isinstance(part, bytes)]
            assert [json.loads(part) for part in parts] == expected
            places = [at for at, _ in found]
            assert all(content[at:].startswith(v) for at, v in zip(places, parts, strict=True))


def test_a_too_long_value_is_counted_and_its_neighbours_are_read() -> None:
    blocks = [b'[{"a": 1}, {"b": "', *([b"x" * 1000] * 100), b'"}, {"c": 3}]']

    found = list(split_values(blocks, max_bytes=1000, in_arrays=True))

    assert [value for _, value in found] == [b'{"a": 1}', 100_009, b'{"c": 3}']


@pytest.mark.parametrize("content", [b'[{"a": 1}', b'{"a": [1}', b'{"a": "b', b"[", b'{"a": "\\'])
def test_a_value_without_an_end_is_an_error(content: bytes) -> None:
    with pytest.raises(InputError, match="ends inside the JSON value"):
        list(split_values([content], max_bytes=100, in_arrays=True))
