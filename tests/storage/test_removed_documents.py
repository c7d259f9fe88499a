"""The list of removed documents: its form, and lines that name no document."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from blendtitan import BlendConfig, build_datasets
from blendtitan.dataset.build import read_catalog
from blendtitan.errors import ConfigError
from blendtitan.storage.catalog_bytes import decode_catalog, encode_catalog
from blendtitan.storage.removed_documents import read_removed_documents
from tests.conftest import EOD, WriteShard


@pytest.fixture
def config(tmp_path: Path, write_shard: WriteShard) -> BlendConfig:
    for name in ("web/0", "code/0", "code/a b"):
        write_shard(name, [[3, 4, EOD], [5, EOD], [], [6, 7, 8, EOD]] * 3000)
    (tmp_path / "list.txt").write_text('1 web/0 web\n1 code/0 code\n1 "code/a b" code')
    return BlendConfig(data_file_list=tmp_path / "list.txt", eod_token_id=EOD, seq_length=8)


@pytest.fixture
def removed(tmp_path: Path) -> Path:
    return tmp_path / "removed.txt"


def test_a_list_names_shards_by_paths_or_their_ends(config: BlendConfig, removed: Path) -> None:
    """In any order. A document that is listed again changes nothing; one may have no tokens."""
    code = removed.parent / "code" / "0"
    removed.write_text(f'# opt-outs\n\nweb/0 11999\n"a b" 2 # empty\r\n{code} 5\nweb/0 0\n0 0\n')
    with pytest.raises(ConfigError, match=r"removed\.txt:7: 2 shards .* end in 0, such as .*web/0"):
        read_removed_documents(removed, read_catalog(config))
    removed.write_text(removed.read_text().replace("\n0 0", "\nweb/0 11999"))
    catalog = read_catalog(config)
    found = read_removed_documents(removed, catalog)

    assert found.shards.tolist() == [0, 2, 1, 0]
    assert found.documents.tolist() == [11999, 2, 5, 0]
    assert found.starts.tolist() == [26996, 5, 12, 0]
    assert found.stops.tolist() == [27000, 5, 14, 3]
    assert found.num_tokens == 9


def test_the_documents_are_broadcast_with_the_catalog(config: BlendConfig, removed: Path) -> None:
    removed.write_text("web/0 3\ncode/0 1\n")
    config = replace(config, removed_documents=removed)
    catalog = read_catalog(config)
    removed.unlink()
    received = decode_catalog(encode_catalog(catalog))

    assert received.removed is not None
    assert catalog.removed is not None
    assert received.removed.json() == catalog.removed.json() == [[0, 1], [3, 1], [5, 3], [9, 5]]
    assert build_datasets(config, received).train is not None
    with pytest.raises(ConfigError, match=r"removed\.txt: there is no such file\. Name a list"):
        read_catalog(config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("web/1 0", "1: web/1 is not among the 3 shards of the file list, such as /"),
        ("web/0 0\neb/0 0", "2: eb/0 is not among the 3 shards"),
        ("web/0.bin 0", "web/0.bin is not among the 3 shards of .* without .bin"),
        ("web/0 12000", "web/0 has no document 12,000, expected 0 to 11,999: it has 12,000 doc"),
        ("web/0", "found 'web/0', expected SHARD DOCUMENT, such as web/0 17"),
        ("web/0 -1", "found 'web/0 -1', expected SHARD DOCUMENT"),
        ("code/a b 1", "Quote a path that contains spaces"),
        ("web/0 1 2", "expected SHARD DOCUMENT"),
        ('"web/0 1', "expected a closing quote"),
    ],
)
def test_a_line_that_names_no_document_is_an_error(
    config: BlendConfig, removed: Path, text: str, message: str
) -> None:
    removed.write_text(text)

    with pytest.raises(ConfigError, match=re.escape(str(removed)) + f":.*{message}"):
        read_removed_documents(removed, read_catalog(config))


def test_a_list_needs_eod_and_our_order(config: BlendConfig, removed: Path) -> None:
    removed.write_text("web/0 1")
    settings = {"data_file_list": config.data_file_list, "seq_length": 8}
    without_eod = BlendConfig(**settings, append_eod=False, removed_documents=removed)

    with pytest.raises(ConfigError, match="eod_token_id is missing, but removed_documents needs"):
        build_datasets(without_eod)
    with pytest.raises(ConfigError, match=r'"blendcorpus" supports .* nor removed_documents'):
        BlendConfig(
            **settings,
            eod_token_id=EOD,
            removed_documents=removed,
            order="blendcorpus",
            train_samples=8,
            eval_samples=0,
            data_cache_path=removed.parent,
        )


def test_a_catalog_without_the_list_is_an_error(config: BlendConfig, removed: Path) -> None:
    removed.write_text("web/0 1")
    catalog = read_catalog(config)

    with pytest.raises(ConfigError, match="the catalog was read without it"):
        build_datasets(replace(config, removed_documents=removed), catalog)
