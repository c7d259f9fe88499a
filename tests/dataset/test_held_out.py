"""A validation set holds no document that training reads."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from blendtitan import BlendConfig
from blendtitan.dataset.build import read_catalog
from blendtitan.dataset.held_out import check_held_out
from blendtitan.errors import ConfigError
from blendtitan.storage.record_writer import write_folder_catalog
from blendtitan.storage.records import CatalogEntry
from tests.conftest import EOD, WriteBlend


@pytest.fixture
def run(write_blend: WriteBlend) -> BlendConfig:
    return write_blend({"web": (1.0, [300, 200])}, seq_length=8, split="90,10,0")


def check(run: BlendConfig, folder: Path, *, allow_overlap: bool = False, name: str = "x") -> None:
    held_out = read_catalog(replace(run, data_file_list=folder, split="0,1,0"))
    check_held_out(name, held_out, read_catalog(run), allow_overlap=allow_overlap)


def test_shards_that_training_does_not_read_are_accepted(
    run: BlendConfig, write_blend: WriteBlend, tmp_path: Path
) -> None:
    write_blend({"books": (1.0, [300])}, seq_length=8)

    check(run, tmp_path / "books")


def test_a_shard_of_the_blend_is_refused_with_its_documents(
    run: BlendConfig, tmp_path: Path
) -> None:
    with pytest.raises(
        ConfigError, match=r"set 'x': shard \S+web_0 is also read for training: 53 of its 59"
    ):
        check(run, tmp_path / "web")


@pytest.mark.parametrize("has_checksums", [False, True])
def test_a_copy_is_recognised_under_any_name(
    run: BlendConfig, tmp_path: Path, has_checksums: bool
) -> None:
    (tmp_path / "copy").mkdir()
    for suffix in (".bin", ".idx"):
        shutil.copy(tmp_path / f"web/web_1{suffix}", tmp_path / f"copy/mine{suffix}")
    if has_checksums:
        entry = CatalogEntry(38, 200, "uint16", "ab" * 16, ((400, "cd" * 16),))
        write_folder_catalog(tmp_path / "web", {"web_1": entry})
        write_folder_catalog(tmp_path / "copy", {"mine": entry})

    with pytest.raises(ConfigError, match=r"copy/mine holds the documents of \S+web/web_1"):
        check(run, tmp_path / "copy")


def test_other_tokens_in_documents_of_the_same_lengths_are_no_copy(
    run: BlendConfig, tmp_path: Path
) -> None:
    shutil.copytree(tmp_path / "web", tmp_path / "other")
    for path in (tmp_path / "other").glob("*.bin"):
        tokens = np.fromfile(path, "<u2")
        np.where(tokens == EOD, tokens, tokens + 1).astype("<u2").tofile(path)

    check(run, tmp_path / "other")


def test_documents_outside_of_the_training_split_are_no_overlap(
    run: BlendConfig, tmp_path: Path
) -> None:
    check(replace(run, split="0,100,0"), tmp_path / "web")


def test_overlap_can_be_allowed(run: BlendConfig, tmp_path: Path) -> None:
    check(run, tmp_path / "web", allow_overlap=True)


def test_the_name_of_a_corpus_is_refused(run: BlendConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set 'web': a corpus of the blend has this name"):
        check(run, tmp_path / "web", allow_overlap=True, name="web")
