"""Whatever a file holds, only our errors come out, and memory stays in proportion to it.

Each target runs for its part of ``BLENDTITAN_FUZZ_SECONDS``, 12 unless set, on inputs that are new
each time.
"""

import contextlib
import hashlib
import re
import shutil
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given

from blendtitan import BlendConfig, DataLoader, build_datasets
from blendtitan.dataset.build import read_catalog
from blendtitan.dataset.stretches import document_at
from blendtitan.errors import BlendTitanError
from blendtitan.prepare.convert_rows import convert_rows
from blendtitan.prepare.row_files import find_row_files
from blendtitan.prepare.token_rows import RowSettings
from blendtitan.settings.known_keys import KEYS
from blendtitan.shards.stats import describe
from blendtitan.shards.verify import Expected, verify
from blendtitan.storage.catalog import Catalog
from blendtitan.storage.catalog_bytes import decode_catalog, encode_catalog
from blendtitan.storage.file_list import read_file_list
from blendtitan.storage.index_arrays import IndexArrays
from blendtitan.storage.list_forms import named_shards
from blendtitan.storage.reader import ShardIndex
from blendtitan.storage.record_writer import write_folder_catalog
from blendtitan.storage.records import CATALOG_FILE, CatalogEntry, read_folder_catalog
from blendtitan.storage.writer import ShardWriter
from blendtitan.titan.toml import read_settings
from tests.fuzz.budget import fuzz, only_our_errors
from tests.fuzz.mutations import (
    DEEP,
    JSON_VALUES,
    damaged_json,
    mutated_bytes,
    mutated_lines,
)

pytestmark = pytest.mark.slow

DOCUMENTS = [[5, 6, 2], [7, 2], [], [8, 9, 10, 2], [2]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the shards ``web/a``, ``web/b`` and ``books``."""
    for name in ("web/a", "web/b", "books"):
        with ShardWriter.create(tmp_path / name, dtype=np.dtype("<u2")) as writer:
            for document in DOCUMENTS * 4:
                writer.add_document(np.array(document, np.int64))
    return tmp_path


def blend_config(folder: Path) -> BlendConfig:
    return BlendConfig(data_file_list=folder, seq_length=4, eod_token_id=2, split="80,20,0")


def read_everything(config: BlendConfig, catalog: Catalog | None = None) -> None:
    dataset = build_datasets(config, catalog).train
    loader = DataLoader(dataset, 4, num_workers=0)
    for consumed_samples in (0, 4, 10**12):
        loader.batch_at(consumed_samples)


def test_an_idx_file(tmp_path: Path) -> None:
    """Read entry by entry, in blocks, by a loader, and by the tools."""
    prefix = tmp_path / "shards/web"
    with ShardWriter.create(prefix, dtype=np.dtype("<u2")) as writer:
        for document in DOCUMENTS:
            writer.add_document(np.array(document, np.int64))
    valid = Path(f"{prefix}.idx").read_bytes()
    tokens = Path(f"{prefix}.bin").read_bytes()

    @given(mutated_bytes(valid) | st.binary(max_size=200), st.sampled_from(["", tokens[:2]]))
    def target(data: bytes, more: bytes) -> None:
        Path(f"{prefix}.idx").write_bytes(data)
        Path(f"{prefix}.bin").write_bytes(tokens + (more or b""))
        with only_our_errors(len(data)):
            index = ShardIndex.open(prefix)
            index.document_starts(0, index.num_documents)
        with only_our_errors(len(data)):
            index = ShardIndex.open(prefix)
            for offset in range(index.num_tokens):
                document_at(index, offset)
        with only_our_errors(len(data)):
            IndexArrays.open(prefix).check_lens()
        with only_our_errors(len(data)):
            IndexArrays.open(prefix).check_documents()
        for eod_id in (2, 9):
            with only_our_errors(len(data)):
                read_everything(
                    BlendConfig(
                        data_file_list=prefix.parent, seq_length=3, eod_token_id=eod_id, split="1"
                    )
                )
        with only_our_errors(len(data)):
            describe([prefix])
        with only_our_errors(len(data)):
            verify([prefix], Expected(vocab_size=9, eod_id=2), threads=1)

    fuzz(target)


LIST = '# all\n0.5 web/a web\n1e-3 "web/b" web\n2 books books # the rest\n'
WORDS = st.sampled_from(
    ["web", "web/a", "books", "0.5", "nan", "1e400", "-0", '"', "'", '"a b"', "''", "#", "x#", "."]
) | st.sampled_from(["5e-324", "1.5e308", "1_0"]) | st.text(max_size=6)  # fmt: skip


def leads_outside(text: str) -> bool:
    return ".." in text or re.search(r"(^|[\s\"'])/", text) is not None


def test_a_file_list(folder: Path) -> None:
    path = folder / "list.txt"
    texts = mutated_lines(LIST, WORDS) | mutated_lines("web/a\nbooks\n", WORDS)

    @given(texts.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=80))
    def target(data: bytes) -> None:
        # The whole disk would be searched for shards.
        assume(not leads_outside(data.decode(errors="replace")))
        path.write_bytes(data)
        with only_our_errors(len(data)):
            named_shards([path])
        with only_our_errors(len(data)):
            entries = read_file_list(path)
            assert entries
            assert all(np.isfinite(entry.weight) and entry.weight > 0 for entry in entries)

    fuzz(target)


TOML = """
[job]
dump_folder = "out"
[training]
local_batch_size = 2
seq_len = 128
[blendcorpus]
data_file_list = "list.txt"
append_eod = true
split = "98,1,1"
max_epochs = 2.5
[parallelism]
tensor_parallel_degree = 1
"""
TOML_VALUES = st.sampled_from(
    ["1", "-1", "0.5", "nan", "inf", "true", '"x"', "'none'", "[]", "[1]", "[[1], ['a']]", "{}"]
) | st.sampled_from(['""', "{a = 1}", "1979-05-27", "0x10", "9" * 30, "1e999", '"\\u0000"', "[{}]"])


def test_a_toml_file_and_a_command_line(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"

    def lines(key: str, value: str) -> str:
        section, _, name = key.rpartition(".")
        return f"[{section}]\n{name} = {value}\n"

    keys = st.sampled_from([*KEYS])
    known = keys.flatmap(lambda key: TOML_VALUES.map(lambda value: lines(key, value)))
    words = st.sampled_from([*KEYS, "[training]", "[x]", "[[job]]", "="]) | TOML_VALUES
    too_deep = st.sampled_from(["a = " + "[" * 3000, "[a" + ".a" * 3000 + "]", "[job]\na = " +
                                "9" * 5000])  # fmt: skip
    texts = mutated_lines(TOML, words) | st.lists(known, max_size=3).map("".join) | too_deep
    arguments = st.lists(
        st.builds("--{}={}".format, keys, TOML_VALUES | DEEP | st.text(max_size=5))
        | st.text(max_size=8),
        max_size=2,
    )

    @given(texts.map(str.encode) | mutated_bytes(TOML.encode()), arguments)
    def target(data: bytes, words: list[str]) -> None:
        path.write_bytes(data)
        with only_our_errors(len(data)):
            read_settings([f"--job.config_file={path}"])
        with only_our_errors(sum(map(len, words))):
            read_settings(words)

    fuzz(target)


def test_a_kept_or_sent_catalog(folder: Path, tmp_path: Path) -> None:
    config = BlendConfig(
        data_file_list=folder, seq_length=4, eod_token_id=2, split="80,20,0",
        data_cache_path=tmp_path / "cache",
    )  # fmt: skip
    valid = encode_catalog(read_catalog(config))
    (kept,) = (tmp_path / "cache").iterdir()

    @given(mutated_bytes(valid) | st.binary(max_size=60), st.booleans())
    def target(data: bytes, is_proved: bool) -> None:
        digest = hashlib.blake2b(data, digest_size=16).digest() if is_proved else b""
        kept.write_bytes(digest + data)
        with only_our_errors(len(data)):
            read_catalog(config)
        with only_our_errors(len(data)):
            read_everything(config, decode_catalog(data))

    fuzz(target)


def test_the_catalog_of_a_folder(folder: Path) -> None:
    entry = CatalogEntry(20, 40, "uint16", "ab", ((40, "cd"), (40, "ef")))
    write_folder_catalog(folder, {"web/a": entry, "books": entry})
    path = folder / CATALOG_FILE
    valid = path.read_text()

    @given(damaged_json(valid))
    def target(data: bytes) -> None:
        path.write_bytes(data)
        with only_our_errors(len(data)):
            read_folder_catalog(folder)
        with only_our_errors(len(data)):
            verify([folder / "web/a"], Expected(), threads=1)
        with only_our_errors(len(data)):
            verify([folder], Expected(), threads=1)

    fuzz(target)


def test_the_state_of_a_loader(folder: Path) -> None:
    dataset = build_datasets(blend_config(folder)).train
    loader = DataLoader(dataset, 4, num_workers=0)
    loader.batch_at(0)
    loader.consumed_samples = 12
    ((key, valid),) = loader.state_dict().items()
    states = damaged_json(valid).map(lambda data: {key: data.decode(errors="replace")})
    others = st.dictionaries(st.just(key) | st.text(max_size=4), JSON_VALUES, max_size=2)

    @given(states | others)
    def target(state: dict[str, object]) -> None:
        loader.consumed_samples = 12
        with only_our_errors(sum(len(str(value)) for value in state.values())):
            loader.load_state_dict(state)
        assert loader.consumed_samples >= 0

    fuzz(target)


TOKEN_ROWS = Path(__file__).parents[1] / "data/token_rows"
FORMATS = ("mds_type", "mds_zstd", "mds_bytes", "litdata_tokens", "litdata_dict", "litdata_lists")
FORMATS += ("litdata_zstd_chunk", "litdata_zstd_batch", "litdata_zstd_sample", "parquet", "arrow")


def test_rows_of_ids_of_other_programs(tmp_path: Path) -> None:
    """Their index, and the first of their files. Nothing but whole shards is left."""
    table = pa.table({"input_ids": DOCUMENTS * 4, "url": ["a"] * 20})
    for name in FORMATS[:-2]:
        shutil.copytree(TOKEN_ROWS / name, tmp_path / name)
    for name in FORMATS[-2:]:
        (tmp_path / name).mkdir()
    pq.write_table(table, tmp_path / "parquet/a.parquet", row_group_size=7)
    with pa.ipc.new_stream(tmp_path / "arrow/a.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    files = [
        path
        for name in FORMATS
        for path in (tmp_path / name / "index.json", min(tmp_path.glob(f"{name}/[!i]*")))
        if path.exists()
    ]
    valid = {path: path.read_bytes() for path in files}
    damage = {
        path: damaged_json(content.decode())
        if path.name == "index.json"
        else mutated_bytes(content)
        for path, content in valid.items()
    }
    damaged = st.sampled_from(files).flatmap(lambda path: st.tuples(st.just(path), damage[path]))
    settings = RowSettings(eod_id=2, dtype="int64")

    @given(damaged)
    def target(change: tuple[Path, bytes]) -> None:
        path, data = change
        path.write_bytes(data)
        output = tmp_path / "output"
        try:
            with contextlib.suppress(BlendTitanError):
                found = find_row_files([path.parent], settings).files
                for file in convert_rows(found, output, settings, threads=1):
                    if file.num_documents:
                        ShardIndex.open(file.prefix)
            assert not [*output.rglob("*.partial-*")]
        finally:
            path.write_bytes(valid[path])
            shutil.rmtree(output, ignore_errors=True)

    fuzz(target)
