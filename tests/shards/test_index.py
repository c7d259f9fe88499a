"""Index: token files of other programs become shards without a copy, or a clear error."""

import csv
import gzip
import os
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datatrove.pipeline.tokens.tokenizer import TokenizedFile

from blendtitan import BlendConfig, build_datasets
from blendtitan.cli import main
from blendtitan.document_sources import Source, open_sources
from blendtitan.errors import ConfigError, CorruptShardError, ShardError
from blendtitan.prepare.demo import train_tokenizer
from blendtitan.shards import index_documents, index_origins
from blendtitan.shards.index import IndexedFile, check_indexed, index, plan_index
from blendtitan.shards.index_documents import IndexSettings
from blendtitan.shards.verify import Expected, verify
from blendtitan.storage.reader import ShardIndex, file_signature
from blendtitan.storage.record_files import read_record
from blendtitan.storage.records import read_ends
from blendtitan.tokenizers import Tokenizer, load_tokenizer

EOD = 2
DOCUMENTS = [[*range(3 + 40 * n, 40 + 40 * n), EOD] for n in range(50)]
TOKENS = [token for document in DOCUMENTS for token in document]


def write_raw(path: Path, tokens: Sequence[int] = TOKENS, dtype: str = "<u2") -> Path:
    """Write as OLMo and dolma do, through a memory map without a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mapped = np.memmap(path, np.dtype(dtype), "w+", shape=(len(tokens),))
    mapped[:] = tokens
    mapped.flush()
    return path


def write_numpy(path: Path, dtype: str = "<u2") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.array(TOKENS, dtype))
    return path


def write_llmc(path: Path, tokens: Sequence[int], magic: int = 20240520, version: int = 1) -> Path:
    """Write like ``write_datafile`` of llm.c."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = np.zeros(256, "<i4")
    header[:3] = magic, version, len(tokens)
    path.write_bytes(
        header.tobytes() + np.array(tokens, "<u2" if version == 1 else "<u4").tobytes()
    )
    return path


def write_datatrove(path: Path, token_size: int = 2, **settings: Any) -> Path:
    """Write with datatrove's own class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = TokenizedFile(
        str(path.parent),
        path.name,
        token_size=token_size,
        tokenizer_name_or_path="org/name",
        **{"save_final_metadata": True} | settings,
    )
    for document in DOCUMENTS:
        file.write(document, None)
    file.close()
    return path


def indexed(
    inputs: Sequence[Path], output: Path, *, overwrite: bool = False, **settings: Any
) -> list[IndexedFile]:
    known = IndexSettings(**{"eod_id": EOD} | settings)
    files = list(index(plan_index(inputs, output, known, overwrite=overwrite), known))
    check_indexed(files)
    return files


def documents(prefix: Path) -> list[list[int]]:
    opened = ShardIndex.open(prefix)
    tokens = np.fromfile(f"{prefix}.bin", opened.dtype)
    starts = opened.document_starts(0, opened.num_documents).tolist()
    return [tokens[a:b].tolist() for a, b in pairwise(starts)]


WRITERS = {
    "OLMo": lambda folder: write_raw(folder / "part-0-00000.npy"),
    "OLMo, large vocabulary": lambda folder: write_raw(folder / "part-0-00000.npy", dtype="<u4"),
    "NumPy": lambda folder: write_numpy(folder / "a.npy"),
    "NumPy, int64": lambda folder: write_numpy(folder / "a.npy", "<i8"),
    "datatrove": lambda folder: write_datatrove(folder / "00000_tokens.ds"),
    "datatrove, large vocabulary": lambda folder: write_datatrove(folder / "00000_tokens.ds", 4),
    "nanotron": lambda folder: write_datatrove(folder / "00000_tokens.ds", save_index=False),
    "llm.c": lambda folder: write_llmc(folder / "fineweb_train_000001.bin", TOKENS),
    "llm.c for Llama 3": lambda folder: write_llmc(folder / "f.bin", TOKENS, 20240801, 7),
    "nanoGPT": lambda folder: write_raw(folder / "train.bin"),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_windows_are_the_tokens_of_the_source(tmp_path: Path, kind: str) -> None:
    """Training reads them from the file of the other program, which stays as it is."""
    source = WRITERS[kind](tmp_path / "theirs/web")
    before = source.read_bytes()
    dtype = "uint32" if kind == "OLMo, large vocabulary" else "uint16"
    indexed([tmp_path / "theirs"], tmp_path / "ours", dtype=dtype)

    config = BlendConfig(
        data_file_list=tmp_path / "ours",
        seq_length=16,
        split="1,0,0",
        shuffle_sample_in_corpus=False,
        vocab_size=max(TOKENS) + 1,
        eod_token_id=EOD,
    )
    train = build_datasets(config).train
    assert train is not None
    for slot in range((len(TOKENS) - 1) // 16):
        window = [*train[slot].input_ids.tolist(), train[slot].labels[-1]]
        assert window == TOKENS[16 * slot : 16 * slot + 17]
    assert source.read_bytes() == before
    assert (tmp_path / "ours/web" / f"{source.stem}.bin").samefile(source)
    assert documents(tmp_path / "ours/web" / source.stem) == DOCUMENTS


@pytest.mark.parametrize("kind", WRITERS)
def test_verify_finds_no_fault(tmp_path: Path, kind: str) -> None:
    WRITERS[kind](tmp_path / "theirs/web")
    dtype = "uint32" if kind == "OLMo, large vocabulary" else "uint16"
    (found,) = indexed([tmp_path / "theirs"], tmp_path / "ours", dtype=dtype)

    (verified,) = verify([tmp_path / "ours"], Expected(vocab_size=max(TOKENS) + 1, eod_id=EOD))

    assert verified.problems == []
    assert verified.tokens is not None
    signature = file_signature(str(found.prefix))
    assert signature is not None
    assert read_ends(str(found.prefix), signature, EOD) == verified.tokens.document_ends
    assert found.notes == ()


@pytest.mark.parametrize("block_bytes", [2, 6, 64, 1 << 20])
@pytest.mark.parametrize("begins", [True, False])
def test_documents_do_not_depend_on_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int, begins: bool
) -> None:
    """Compared with a plain loop, on few ids, so that separators come in all places."""
    monkeypatch.setattr(index_documents, "_BLOCK_BYTES", block_bytes)
    generator = np.random.default_rng(block_bytes)
    for number in range(20):
        tokens = generator.integers(1, 5, 60).tolist()
        source = write_raw(tmp_path / f"{number}.npy", tokens)
        expected: list[list[int]] = [[]]
        for token in tokens:
            if begins and token == EOD and expected[-1]:
                expected.append([])
            expected[-1].append(token)
            if not begins and token == EOD:
                expected.append([])
        separator = {"eod_id": None, "bos_id": EOD} if begins else {"eod_id": EOD}
        (found,) = indexed([source], tmp_path / "ours", dtype="uint16", **separator)

        assert documents(found.prefix) == [d for d in expected if d]
        signature = file_signature(str(found.prefix))
        assert signature is not None
        (verified,) = verify([found.prefix], Expected(eod_id=EOD))
        assert verified.tokens is not None
        assert read_ends(str(found.prefix), signature, EOD) == verified.tokens.document_ends


def test_documents_of_datatrove_need_no_separator(tmp_path: Path) -> None:
    source = write_datatrove(tmp_path / "00000_tokens.ds")
    (found,) = indexed([source], tmp_path / "ours", eod_id=None)

    assert documents(found.prefix) == DOCUMENTS


def test_llmc_begins_documents_with_the_separator_and_cuts_files_anywhere(tmp_path: Path) -> None:
    tokens = [50, 60, EOD, *TOKENS[:-1]]
    (found,) = indexed([write_llmc(tmp_path / "a.bin", tokens)], tmp_path, eod_id=None, bos_id=EOD)

    assert documents(found.prefix) == [
        [50, 60],
        [EOD, *DOCUMENTS[0][:-1]],
        *([EOD, *document[:-1]] for document in DOCUMENTS[1:]),
    ]
    assert not (tmp_path / "a.bin").is_symlink()


def test_a_file_that_does_not_end_in_eod_is_reported(tmp_path: Path) -> None:
    """It can be trained on as it is, or the error of a run would come later."""
    (found,) = indexed([write_raw(tmp_path / "a.npy", TOKENS[:-1])], tmp_path, dtype="uint16")

    (note,) = found.notes
    assert "1 of 50 documents does not end in the id 2. Train with append_eod = false" in note


def test_implausible_lengths_are_reported(tmp_path: Path) -> None:
    (found,) = indexed([write_raw(tmp_path / "a.npy", [7, EOD] * 50)], tmp_path, dtype="uint16")

    assert "50 documents have 2 tokens on average" in found.notes[0]


def test_an_array_of_rows_is_one_stream_of_tokens(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array(TOKENS, "<u2").reshape(-1, 19))
    (found,) = indexed([tmp_path / "a.npy"], tmp_path)

    assert documents(found.prefix) == DOCUMENTS


# Where the files go


def test_files_of_a_folder_keep_their_place_and_others_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for corpus in ("web", "code"):
        write_raw(tmp_path / "theirs" / corpus / "0.npy")
        (tmp_path / "theirs" / corpus / "0.json.gz").touch()

    indexed([tmp_path / "theirs"], tmp_path / "ours", dtype="uint16")

    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("ours/*/*"))
    names = ("0.bin", "0.ends.json", "0.idx")
    assert found == [f"ours/{corpus}/{name}" for corpus in ("code", "web") for name in names]
    assert "skipped files that hold no tokens: 2 .gz" in caplog.text
    assert sorted(os.listdir(tmp_path / "theirs/web")) == ["0.json.gz", "0.npy"]


def test_beside_the_tokens_the_link_is_relative(tmp_path: Path) -> None:
    """So that the folder can be moved. Running it again finds only the tokens."""
    write_raw(tmp_path / "theirs/0.npy")
    for was_there in (False, True):
        (found,) = indexed([tmp_path / "theirs"], tmp_path / "theirs", dtype="uint16")
        assert found.was_there is was_there
    (tmp_path / "theirs").rename(tmp_path / "moved")

    assert os.readlink(tmp_path / "moved/0.bin") == "0.npy"
    assert documents(tmp_path / "moved/0") == DOCUMENTS


@pytest.mark.parametrize("has_idx", [True, False])
def test_the_output_may_be_a_folder_of_the_input(tmp_path: Path, has_idx: bool) -> None:
    """The links to the tokens are not inputs of the next call, even after a kill."""
    write_raw(tmp_path / "web/0.npy")
    write_raw(tmp_path / "web/1.bin")
    indexed([tmp_path], tmp_path / "ours", dtype="uint16")
    if not has_idx:
        (tmp_path / "ours/web/0.idx").unlink()

    again = indexed([tmp_path], tmp_path / "ours", dtype="uint16")
    assert [file.path for file in again] == [tmp_path / "web/0.npy", tmp_path / "web/1.bin"]
    assert [file.was_there for file in again] == [has_idx, True]


def test_a_link_to_tokens_elsewhere_is_indexed_like_a_file(tmp_path: Path) -> None:
    target = write_raw(tmp_path / "elsewhere/a.bin")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/train.bin").symlink_to(target)
    for was_there in (False, True):
        (found,) = indexed([tmp_path / "theirs"], tmp_path / "ours", dtype="uint16")
        assert found.was_there is was_there


def test_bytes_of_text_are_tokens(tmp_path: Path) -> None:
    """Models of bytes read them; no byte is taken for half of an id."""
    text = Path(__file__).read_bytes().replace(b"\n", bytes([EOD]))
    source = tmp_path / "a.bin"
    source.write_bytes(text[: len(text) // 8 * 8])
    (found,) = indexed([source], tmp_path / "ours", dtype="uint8")

    assert found.num_tokens == source.stat().st_size


def test_an_interrupted_call_keeps_finished_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        write_raw(tmp_path / f"theirs/{number}.npy")
    known = IndexSettings(eod_id=EOD, dtype="uint16")
    planned = plan_index([tmp_path / "theirs"], tmp_path / "ours", known)
    running = index(planned, known, threads=1)
    next(running)
    running.close()

    again = indexed([tmp_path / "theirs"], tmp_path / "ours", dtype="uint16")
    assert again[0].was_there
    assert [documents(file.prefix) for file in again] == [DOCUMENTS] * 4
    assert again[0].lengths.num_documents == 50


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ({"eod_id": 3}, None),
        ({"eod_id": None, "bos_id": EOD}, None),
        ({"dtype": "int64"}, None),
        ({}, "tokens"),
    ],
    ids=str,
)
def test_an_idx_of_other_settings_or_tokens_is_not_overwritten(
    tmp_path: Path, settings: dict[str, Any], change: str | None
) -> None:
    source = write_raw(tmp_path / "a.npy", TOKENS + [9, 9, 9, EOD] * 3)
    indexed([source], tmp_path, dtype="uint16")
    idx = (tmp_path / "a.idx").read_bytes()
    if change:
        write_raw(source, [*TOKENS, 3, EOD])

    with pytest.raises(ConfigError, match=r"a\.idx: exists already, and was not made by this"):
        indexed([source], tmp_path, **{"dtype": "uint16"} | settings)
    assert (tmp_path / "a.idx").read_bytes() == idx
    if change:
        indexed([source], tmp_path, dtype="uint16", overwrite=True)
        assert documents(tmp_path / "a")[-1] == [3, EOD]


def test_no_file_of_the_same_name_is_replaced(tmp_path: Path) -> None:
    write_raw(tmp_path / "a.bin", [1, 2, 3])
    source = write_raw(tmp_path / "other/a.npy")

    with pytest.raises(ConfigError, match=r"a\.bin: is another file, but a link to "):
        indexed([source], tmp_path, dtype="uint16", overwrite=True)
    assert (tmp_path / "a.bin").stat().st_size == 6


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    write_raw(tmp_path / "theirs/a.npy")
    write_datatrove(tmp_path / "theirs/a.ds")

    with pytest.raises(ConfigError, match=r"a\.npy and .*a\.ds would both become the shard a"):
        indexed([tmp_path / "theirs"], tmp_path / "ours", dtype="uint16")


def test_a_shard_is_named(tmp_path: Path) -> None:
    source = write_raw(tmp_path / "a.bin")
    (tmp_path / "a.idx").touch()

    with pytest.raises(ConfigError, match=r"a\.idx is beside it, so it is a shard already"):
        indexed([source], tmp_path / "ours", dtype="uint16")


# The source of every document


def write_dolma(path: Path, rows: Sequence[Sequence[object]] | None = None) -> Path:
    """Write tokens and the list of documents as ``MemmapWriter`` of dolma does."""
    write_raw(path)
    ends = np.cumsum([len(document) for document in DOCUMENTS]).tolist()
    starts = [0, *ends]
    expected = [
        (starts[n], end, f'id "{n}", x', f"s3://ai2/{n // 20}.json.gz", n % 20 + 1)
        for n, end in enumerate(ends)
    ]
    with gzip.open(path.with_name(f"{path.stem}.csv.gz"), "wt", newline="") as file:
        csv.writer(file).writerows(expected if rows is None else rows)
    return path


def sources_of(prefix: Path, document_ids: Sequence[int]) -> list[Source]:
    with open_sources(prefix) as sources:
        assert sources is not None
        assert sources.num_documents == len(DOCUMENTS)
        return sources.of_documents(document_ids)


@pytest.mark.parametrize("rows", [1, 7, 1 << 16])
def test_dolmas_list_of_documents_gives_their_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """Its lines count from 1, rows from 0."""
    monkeypatch.setattr(index_origins, "_ROWS", rows)
    write_dolma(tmp_path / "theirs/web/0.npy")
    for was_there in (False, True):
        (found,) = indexed([tmp_path / "theirs"], tmp_path / "ours", dtype="uint16")
        assert (found.was_there, found.notes) == (was_there, ())
        first, last = sources_of(tmp_path / "ours/web/0", [0, 49])
        assert first == Source("s3://ai2/0.json.gz", 0, None, {"id": 'id "0", x'})
        assert last == Source("s3://ai2/2.json.gz", 9, None, {"id": 'id "49", x'})
        # As an earlier release left it.
        (tmp_path / "ours/web/0.docs.parquet").unlink()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "lists 0 of 50 documents"),
        ([(0, 99, "a", "b", 1)], "does not list the documents that the separating id"),
        ([(0, 38, "a", "b")], "cannot be read"),
        ([(0, 38, "a", "b", "c")], "cannot be read"),
    ],
)
def test_a_list_of_other_documents_is_reported_and_not_used(
    tmp_path: Path, rows: Sequence[Sequence[object]], message: str
) -> None:
    """The tokens can be used all the same, also in the folder of an earlier output."""
    source = write_dolma(tmp_path / "0.npy")
    indexed([source], tmp_path, dtype="uint16")
    write_dolma(source, rows)
    (found,) = indexed([source], tmp_path, dtype="uint16", overwrite=True)

    assert message in found.notes[0]
    assert found.notes[0].endswith("The sources of its documents are not recorded.")
    assert sorted(os.listdir(tmp_path)) == ["0.bin", "0.csv.gz", "0.ends.json", "0.idx", "0.npy"]


@pytest.mark.parametrize("output", ["theirs", "ours"])
def test_sources_beside_the_tokens_are_carried_along(tmp_path: Path, output: str) -> None:
    source = write_dolma(tmp_path / "theirs/0.npy")
    indexed([source], tmp_path / "made", dtype="uint16")
    (tmp_path / "theirs/0.csv.gz").unlink()
    (tmp_path / "made/0.docs.parquet").rename(tmp_path / "theirs/0.docs.parquet")
    for overwrite in (False, True):
        indexed([source], tmp_path / output, dtype="uint16", overwrite=overwrite)

        assert sources_of(tmp_path / output / "0", [3])[0].row == 3


# Files that cannot be used


def damage_llmc(path: Path, at: int, value: int) -> None:
    write_llmc(path, TOKENS)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(value.to_bytes(4, "little"))


def save(path: Path, array: np.ndarray[Any, Any]) -> None:
    np.save(path, array)


UNUSABLE = {
    "empty": ("a.npy", lambda p: p.touch(), "a.npy: is empty"),
    "odd size": ("a.npy", lambda p: p.write_bytes(b"abc"), "3 bytes, expected a multiple of 2"),
    "other name": ("a.txt", lambda p: p.touch(), "expected a token file that ends in .npy"),
    "numpy, cut": (
        "a.npy",
        lambda p: (write_numpy(p), os.truncate(p, p.stat().st_size - 2)),
        "found 3,926 bytes, expected 3,928, by its header",
    ),
    "numpy, header cut": (
        "a.npy",
        lambda p: p.write_bytes(b"\x93NUMPY\x01\x00\x76\x00{"),
        "header",
    ),
    "numpy, floats": ("a.npy", lambda p: save(p, np.zeros(4)), "array of type <f8, expected"),
    "numpy, big endian": ("a.npy", lambda p: save(p, np.zeros(4, ">u2")), "array of type >u2"),
    "numpy, columns": (
        "a.npy",
        lambda p: save(p, np.asfortranarray(np.zeros((4, 4), "<u2"))),
        "Fortran order",
    ),
    "llm.c, cut": (
        "a.bin",
        lambda p: (write_llmc(p, TOKENS), os.truncate(p, 3000)),
        "found 3,000 bytes, expected 4,824",
    ),
    "llm.c, header cut": (
        "a.bin",
        lambda p: (write_llmc(p, TOKENS), os.truncate(p, 100)),
        "a header of llm.c of 100 bytes",
    ),
    "llm.c, version": ("a.bin", lambda p: damage_llmc(p, 4, 2), "version 2 and 1,900 tokens"),
    "llm.c, evaluation": ("a.bin", lambda p: damage_llmc(p, 0, 20240522), "is an evaluation file"),
    "datatrove, cut": (
        "a.ds",
        lambda p: (write_datatrove(p), os.truncate(p, 3000)),
        "found 3,000 bytes, expected 3,800",
    ),
    "datatrove, metadata": (
        "a.ds",
        lambda p: (write_datatrove(p), Path(f"{p}.metadata").write_text("gpt2\n12")),
        "found 'gpt2 12', expected TOKENIZER|2",
    ),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_an_unusable_file_is_refused_before_anything_is_written(tmp_path: Path, kind: str) -> None:
    name, write, message = UNUSABLE[kind]
    (tmp_path / "theirs").mkdir()
    write(tmp_path / "theirs" / name)

    with pytest.raises((CorruptShardError, ConfigError), match=re.escape(message)):
        indexed([tmp_path / "theirs" / name], tmp_path / "ours", dtype="uint16")
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    ("tokens", "dtype", "settings", "message"),
    [
        (TOKENS, "<u2", {"eod_id": 7777}, r"the id 7777 never occurs, .* 2 \(50 times\)"),
        (TOKENS, "<u2", {"vocab_size": 1000}, "the token id 1,003, expected 0 to 999, the ids of"),
        (TOKENS, "<u2", {"dtype": "uint32"}, r"the token id .*, or it holds no ids of type int32"),
        (
            TOKENS,
            "<u4",
            {"dtype": "uint16"},
            "ids of 4 bytes, read 2 bytes at a time.*--dtype uint32",
        ),
        (TOKENS * 9, "<u2", {"dtype": "uint8"}, "ids of 2 bytes, read 1 byte at a time.*uint16"),
        (TOKENS, "<u4", {"dtype": "uint8"}, "ids of 4 bytes, read 1 byte at a time.*uint32"),
        (TOKENS, "<i8", {"dtype": "int32"}, "ids of 8 bytes, read 4 bytes at a time.*uint64"),
        ([5, -1, EOD], "<i4", {"dtype": "int32"}, "holds the token id -1"),
    ],
)
def test_unusable_tokens_are_refused(
    tmp_path: Path, tokens: list[int], dtype: str, settings: dict[str, Any], message: str
) -> None:
    """The other files are indexed, and nothing is left of this one."""
    write_raw(tmp_path / "theirs/bad.npy", tokens, dtype)
    write_numpy(tmp_path / "theirs/good.npy")
    settings = {"dtype": "uint16"} | settings
    good = "eod_id" not in settings and "vocab_size" not in settings

    with pytest.raises(ShardError, match=message):
        indexed([tmp_path / "theirs"], tmp_path / "ours", **settings)
    assert not list(tmp_path.glob("ours/bad.*"))
    assert (tmp_path / "ours/good.idx").exists() is good


def test_documents_beyond_the_file_are_refused(tmp_path: Path) -> None:
    source = write_datatrove(tmp_path / "a.ds")
    ends = np.fromfile(f"{source}.index", "<u8")
    ends[-1] += 1
    ends.tofile(f"{source}.index")

    with pytest.raises(ShardError, match="lists documents up to token 1,901, expected grow"):
        indexed([source], tmp_path)


def test_a_file_that_grows_meanwhile_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_raw(tmp_path / "a.npy")
    find = index_documents.find_documents

    def find_and_append(*arguments: Any) -> Any:
        found = find(*arguments)
        with source.open("ab") as file:
            file.write(b"\0\0")
        return found

    monkeypatch.setattr("blendtitan.shards.index.find_documents", find_and_append)

    with pytest.raises(ShardError, match="changed while it was read"):
        indexed([source], tmp_path, dtype="uint16")
    assert not (tmp_path / "a.idx").exists()


@pytest.mark.parametrize("settings", [{"dtype": "uint16", "eod_id": None}, {}], ids=str)
def test_what_the_file_does_not_say_must_be_given(tmp_path: Path, settings: dict[str, Any]) -> None:
    source = write_raw(tmp_path / "a.npy")

    with pytest.raises(ConfigError, match=r"Give --(eod-id|dtype)"):
        indexed([source], tmp_path / "ours", **settings)
    assert not (tmp_path / "ours").exists()


# The tokenizer


TEXTS = ["the cat sat on the mat", "a second text", "and a third"] * 9


@pytest.fixture(scope="module")
def tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    path.write_bytes(train_tokenizer(Path(__file__).read_text().splitlines(), vocab_size=400))
    return path


def write_texts(path: Path, tokenizer: Path) -> Path:
    encode = load_tokenizer(tokenizer).encode
    return write_raw(path, [token for text in TEXTS for token in encode(text, eos=True)])


def test_the_tokenizer_is_recorded_and_gives_eod(tmp_path: Path, tokenizer_path: Path) -> None:
    source = write_texts(tmp_path / "a.npy", tokenizer_path)
    for was_there in (False, True):
        (found,) = indexed(
            [source],
            tmp_path / "ours",
            dtype="uint16",
            eod_id=None,
            tokenizer=load_tokenizer(tokenizer_path),
        )
        assert found.was_there is was_there

    record = read_record(found.prefix)
    assert record is not None
    assert record.describes(documents=27, tokens=found.num_tokens)
    assert main(["verify", str(tmp_path / "ours"), "--tokenizer", str(tokenizer_path)]) == 0


def spelled(tokens: list[int], tokenizer: Tokenizer) -> list[int]:
    """The ids of a text's characters, as another tokenizer might give them."""
    return [token for char in tokenizer.decode(tokens) for token in tokenizer.encode(char)]


def test_another_tokenizer_is_refused(tmp_path: Path, tokenizer_path: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_path)
    texts = [[*spelled(tokenizer.encode(text), tokenizer), tokenizer.eos_id] for text in TEXTS]
    source = write_raw(tmp_path / "a.npy", [token for text in texts for token in text])

    with pytest.raises(ShardError, match="documents that were compared have other ids"):
        indexed([source], tmp_path / "ours", dtype="uint16", tokenizer=tokenizer)
    assert not list((tmp_path / "ours").iterdir())


def test_a_tokenizer_that_recovers_no_text_is_not_recorded(
    tmp_path: Path, word_tokenizer: Path
) -> None:
    tokenizer = load_tokenizer(word_tokenizer)

    with pytest.raises(ShardError, match="decodes and encodes none of 50 documents"):
        indexed([write_raw(tmp_path / "a.npy")], tmp_path, dtype="uint16", tokenizer=tokenizer)
    assert os.listdir(tmp_path) == ["a.npy"]


# The command


def test_the_command_shows_corpora_and_notes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_raw(tmp_path / "theirs/web/0.npy")
    write_raw(tmp_path / "theirs/code/0.npy", TOKENS[:-1])
    arguments = ["index", str(tmp_path / "theirs"), "--output", str(tmp_path / "ours")]

    assert main([*arguments, "--dtype", "uint16", "--eod-id", "2"]) == 0
    shown = capsys.readouterr()
    assert re.search(r"web +1 +50 +1,900 +38 +38 +38", shown.out)
    assert "2 indexed, 0 indexed before" in shown.out
    assert "does not end in the id 2" in shown.err
    assert main([*arguments, "--dtype", "uint16", "--eod-id", "7777"]) == 1
