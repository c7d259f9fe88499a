import gzip
import itertools
import random
from pathlib import Path

import pytest

from blendtitan.errors import InputError
from blendtitan.prepare.input_file import InputFile
from blendtitan.prepare.json_text import read_lines
from blendtitan.prepare.streams import BadText, TextRange, read_blocks, split_lines, zstd
from tests.prepare.conftest import strings

LINES = b'{"text": "one"}\n{"text": "two"}\n'
SKIPPABLE_FRAME = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"

COMPRESSED = {
    "a.jsonl": LINES,
    "a.gz": gzip.compress(LINES[:20], mtime=0) + gzip.compress(LINES[20:], mtime=0),
    "a.zst": zstd.compress(LINES[:20]) + SKIPPABLE_FRAME + zstd.compress(LINES[20:]),
}


def read_texts(path: Path, *, key: str = "text") -> list[str | BadText]:
    file = InputFile.of(path)
    return strings(read_lines(TextRange(file, 0, file.num_bytes, key)))


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", COMPRESSED)
def test_files_are_read_as_their_names_say(tmp_path: Path, name: str) -> None:
    """Parallel compressors write several members or frames, some of them holding no data."""
    assert read_texts(written(tmp_path / name, COMPRESSED[name])) == ["one", "two"]


@pytest.mark.parametrize("name", ["a.gz", "a.zst"])
@pytest.mark.parametrize("missing", [1, 15, "all"])
def test_a_truncated_file_is_an_error(tmp_path: Path, name: str, missing: int | str) -> None:
    """The usual reader of zstd files accepts truncated files."""
    content = b"" if missing == "all" else COMPRESSED[name][: -int(missing)]

    with pytest.raises(InputError, match=rf"{name}: the compressed data cannot be read"):
        read_texts(written(tmp_path / name, content))


@pytest.mark.parametrize("name", ["a.gz", "a.zst"])
def test_a_file_that_is_not_compressed_as_named_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=rf"{name}: the compressed data cannot be read"):
        read_texts(written(tmp_path / name, LINES))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.jsonl: cannot be read \(No such file"):
        read_texts(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    "content",
    [
        b'{"text": "one"}\r\n{"text": "two"}\r\n',
        b'{"text": "one"}\n{"text": "two"}',
        b'\xef\xbb\xbf{"text": "one"}\n\n  \n{"text": "two"}\n',
        b'{"id": 1, "text": "one"}\n {"text": "t\\u0077o"} \n',
        b'{"text": "one"}{"text": "two"}\n',
        b'{"text": "one"} \t {"text": "two"}\r\n',
    ],
    ids=[
        *("carriage returns", "no last newline", "byte order mark and blank lines", "other JSON"),
        *("two on a line", "two on a line, apart"),
    ],
)
def test_usual_variants_of_json_lines_are_read(tmp_path: Path, content: bytes) -> None:
    assert read_texts(written(tmp_path / "a.jsonl", content)) == ["one", "two"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "tw', "not JSON in UTF-8"),
        (b'{"text": "\xff"}', "not valid UTF-8"),
        (b'{"text": "\\ud800"}', "surrogate"),
        (b'{"text": NaN}', "'text' is of type float, expected a string"),
        (b'["text"]', "found JSON of type list, expected an object"),
        (b'{"txt": "two", "id": 2}', "there is no key 'text', found 'txt', 'id'"),
        (b"{}", "there is no key 'text', found none"),
        (b'{"text": null}', "'text' is of type NoneType, expected a string"),
        (b'{"text": ""}', "'text' is an empty string"),
    ],
)
def test_a_bad_line_is_reported_and_its_neighbours_are_read(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    path = written(tmp_path / "a.jsonl", b'{"text": "one"}\n%b\n{"text": "three"}\n' % line)

    one, bad, three = read_texts(path)

    assert (one, three) == ("one", "three")
    assert isinstance(bad, BadText)
    assert (bad.unit, bad.place) == ("byte", 16)
    assert reason in bad.reason


@pytest.mark.parametrize("score", ["NaN", "[Infinity, -Infinity]", '"\\ud800"', "1e999"])
def test_other_fields_may_hold_json_extensions_of_python(tmp_path: Path, score: str) -> None:
    """Python's own writer makes NaN and Infinity, which JSON does not have."""
    path = written(tmp_path / "a.jsonl", b'{"text": "one", "score": %b}\n' % score.encode())

    assert read_texts(path) == ["one"]


def test_a_key_may_be_a_path_and_a_name_with_a_dot_takes_precedence(tmp_path: Path) -> None:
    nested = b'{"content": {"text": "one"}}\n'
    literal = b'{"content.text": "two", "content": {"text": "other"}}\n'
    path = written(tmp_path / "a.jsonl", nested + literal + b'{"content": "three"}\n')

    *texts, bad = read_texts(path, key="content.text")

    assert texts == ["one", "two"]
    assert isinstance(bad, BadText)
    assert bad.reason == "there is no key 'content.text', found 'content'"


@pytest.mark.parametrize("bad", [b'{"text": ""}', b'{"id": 1}', b'{"text": "\\ud800"}', b'{"te'])
def test_a_bad_object_does_not_affect_others_on_its_line(tmp_path: Path, bad: bytes) -> None:
    path = written(tmp_path / "a.jsonl", b'{"text": "one"}%b\n{"text": "two"}' % bad)

    one, reject, two = read_texts(path)

    assert (one, two) == ("one", "two")
    assert isinstance(reject, BadText)


def test_each_line_belongs_to_the_range_that_it_starts_in(tmp_path: Path) -> None:
    """Each line is read once for any ranges, including empty, bad and very long lines."""
    lines = [
        b'{"text": "one"}',
        b"",
        b"bad",
        b'{"text": "%b"}' % (b"x" * 40),
        b'{"text": "\xc3\xa9"}',
    ]
    path = written(tmp_path / "a.jsonl", b"\n".join(lines))
    whole, size = read_texts(path), path.stat().st_size

    for step in range(1, size + 2):
        ranges = [(start, min(start + step, size)) for start in range(0, size, step)]
        file = InputFile.of(path)
        texts = [text for a, b in ranges for text in strings(read_lines(TextRange(file, a, b)))]
        assert texts == whole


def test_another_key_can_be_read(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", b'{"content": "one"}\n')

    assert read_texts(path, key="content") == ["one"]


def test_a_too_long_line_is_reported() -> None:
    """A file without line ends must not fill the memory."""
    long = itertools.repeat(b"x" * 1000, 100)

    lines = list(split_lines([*long, b"\nnext"], max_line_bytes=50_000))

    assert lines == [(0, 100_000), (100_001, b"next")]


def test_lines_do_not_depend_on_the_blocks() -> None:
    """A block may end anywhere, also inside a character or between carriage return and newline."""
    generator = random.Random(1)
    for _ in range(200):
        content = bytes(generator.choices(b"ab\n\r", k=generator.randrange(30)))
        cuts = sorted(generator.choices(range(len(content) + 1), k=5))
        blocks = [content[a:b] for a, b in itertools.pairwise([0, *cuts, len(content)])]

        expected = [line for line in content.split(b"\n") if line.strip()]
        # Blank lines are passed over sooner or later.
        lines = [(at, line) for at, line in split_lines(blocks) if isinstance(line, bytes)]
        assert [line for _, line in lines if line.strip()] == expected
        assert all(content[at:].startswith(line) for at, line in lines)


@pytest.mark.parametrize("name", COMPRESSED)
def test_progress_counts_the_bytes_of_the_file(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, COMPRESSED[name])
    counts: list[int] = []

    list(read_blocks(InputFile.of(path), advance=counts.append))

    assert sum(counts) == path.stat().st_size
