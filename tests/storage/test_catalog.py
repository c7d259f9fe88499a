"""The catalog: built once, kept or sent as bytes, never out of date."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from blendtitan import BlendConfig
from blendtitan.dataset.build import read_catalog
from blendtitan.errors import ConfigError, CorruptShardError, MissingShardError, MixedEodError
from blendtitan.storage.catalog import Catalog
from blendtitan.storage.catalog_bytes import decode_catalog, encode_catalog
from tests.conftest import WriteBlend, WriteShard


def assert_equal(one: Catalog, other: Catalog) -> None:
    assert one.prefixes == other.prefixes
    assert one.corpora == other.corpora
    assert one.settings == other.settings
    for name in (
        "weights",
        "dtype_codes",
        "num_sequences",
        "document_cuts",
        "token_cuts",
        "lacks_eod",
        "eod_roles",
        "checksums",
    ):
        assert np.array_equal(getattr(one, name), getattr(other, name))


def test_it_travels_as_bytes(write_blend: WriteBlend) -> None:
    catalog = read_catalog(write_blend({"wëb": (1.0, [500, 20]), "code": (2.0, [90])},
                                       seq_length=8))  # fmt: skip

    assert_equal(decode_catalog(encode_catalog(catalog)), catalog)


def test_it_holds_where_the_splits_cut(write_shard: WriteShard, tmp_path: Path) -> None:
    write_shard("web", [[5, 2]] * 6 + [[5, 6, 2]] * 4)
    (tmp_path / "list").write_text("1 web")
    config = BlendConfig(
        data_file_list=tmp_path / "list", seq_length=4, eod_token_id=2, split="60,20,20"
    )
    catalog = read_catalog(config)

    assert catalog.document_cuts.tolist() == [[0, 6, 8, 10]]
    assert catalog.token_cuts.tolist() == [[0, 12, 18, 24]]


def test_a_kept_catalog_asks_twice_for_each_shard_and_opens_none(
    write_blend: WriteBlend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for each file: on a network every question is a round trip."""
    config = write_blend({"web": (1.0, [50] * 40)}, seq_length=8, data_cache_path=tmp_path / "kept")
    built = read_catalog(config)
    asked: list[str] = []
    stat = os.stat
    monkeypatch.setattr(
        os, "stat", lambda path, **kw: (asked.append(str(path)), stat(path, **kw))[1]
    )
    opened: list[str] = []
    os_open = os.open
    monkeypatch.setattr(
        os, "open", lambda path, *flags: (opened.append(str(path)), os_open(path, *flags))[1]
    )

    assert_equal(read_catalog(config), built)
    assert sum(path.endswith((".idx", ".bin")) for path in asked) == 2 * 40
    assert not any(path.endswith((".idx", ".bin")) for path in opened)


def test_a_kept_catalog_is_not_looked_for_where_a_file_is_missing(
    write_blend: WriteBlend, tmp_path: Path
) -> None:
    config = write_blend({"web": (1.0, [500, 90])}, seq_length=8, data_cache_path=tmp_path / "kept")
    read_catalog(config)
    (tmp_path / "web/web_1.bin").unlink()

    with pytest.raises(MissingShardError, match=r"web_1\.bin: cannot be read"):
        read_catalog(config)


def test_a_kept_catalog_needs_no_idx_file(write_blend: WriteBlend, tmp_path: Path) -> None:
    """Shown by an .idx that cannot be read any more, its size and time being as before."""
    config = write_blend({"web": (1.0, [500])}, seq_length=8, data_cache_path=tmp_path / "cache")
    built = read_catalog(config)
    idx = tmp_path / "web/web_0.idx"
    times = os.stat(idx)
    idx.write_bytes(bytes(times.st_size))
    os.utime(idx, ns=(times.st_atime_ns, times.st_mtime_ns))

    assert_equal(read_catalog(config), built)


def test_a_kept_catalog_is_not_used_for_a_changed_shard(
    write_blend: WriteBlend, tmp_path: Path
) -> None:
    settings = {"seq_length": 8, "data_cache_path": tmp_path / "cache"}
    before = read_catalog(write_blend({"web": (1.0, [500])}, **settings))
    after = read_catalog(write_blend({"web": (1.0, [600])}, **settings))

    assert (before.token_cuts[0, 3], after.token_cuts[0, 3]) == (500, 600)


def test_a_kept_catalog_is_not_used_for_another_split(
    write_blend: WriteBlend, tmp_path: Path
) -> None:
    cuts = [
        read_catalog(
            write_blend({"web": (1.0, [500])}, seq_length=8, data_cache_path=tmp_path, split=split)
        ).document_cuts.tolist()
        for split in ("98,1,1", "50,25,25")
    ]

    assert cuts[0] != cuts[1]


def test_a_kept_catalog_is_not_used_for_other_content_of_the_same_size(
    write_shard: WriteShard, tmp_path: Path
) -> None:
    """They differ in their modification times."""
    (tmp_path / "list").write_text("1 web")
    config = BlendConfig(data_file_list=tmp_path / "list", seq_length=4, eod_token_id=2,
                         data_cache_path=tmp_path / "cache")  # fmt: skip
    lacks_eod = []
    for i, last in enumerate((2, 7)):
        prefix = write_shard("web", [[5, last]] * 9)
        os.utime(f"{prefix}.bin", (i, i))
        lacks_eod.append(bool(read_catalog(config).lacks_eod[0]))

    assert lacks_eod == [False, True]


def test_a_kept_catalog_is_not_used_for_other_weights_or_another_eod(
    write_shard: WriteShard, tmp_path: Path
) -> None:
    write_shard("web", [[5, 2]] * 9)
    found = []
    for weight, eod in ((1, 2), (3, 2), (3, 9)):
        (tmp_path / "list").write_text(f"{weight} web")
        catalog = read_catalog(
            BlendConfig(data_file_list=tmp_path / "list", seq_length=4, eod_token_id=eod,
                        data_cache_path=tmp_path / "cache")
        )  # fmt: skip
        found.append((float(catalog.weights[0]), bool(catalog.lacks_eod[0])))

    assert found == [(1, False), (3, False), (3, True)]


def test_a_folder_that_cannot_keep_the_catalog_is_named(write_blend: WriteBlend) -> None:
    config = write_blend({"web": (1.0, [500])}, seq_length=8, data_cache_path="/dev/null/x")

    with pytest.raises(ConfigError, match="data_cache_path is /dev/null/x"):
        read_catalog(config)


def test_cuts_that_go_backwards_are_refused(write_shard: WriteShard, tmp_path: Path) -> None:
    """They would let test documents into training."""
    prefix = write_shard("web", [[5, 2]] * 10)
    idx = bytearray(Path(f"{prefix}.idx").read_bytes())
    at = len(idx) - 8 * 11
    idx[at + 8 * 6 : at + 8 * 7] = (9).to_bytes(8, "little")
    Path(f"{prefix}.idx").write_bytes(bytes(idx))
    (tmp_path / "list").write_text("1 web")

    with pytest.raises(CorruptShardError, match="expected growing numbers"):
        read_catalog(BlendConfig(data_file_list=tmp_path / "list", seq_length=4, eod_token_id=2,
                                 split="60,20,20"))  # fmt: skip


def test_a_damaged_kept_catalog_is_built_again(
    write_blend: WriteBlend, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = write_blend({"web": (1.0, [500])}, seq_length=8, data_cache_path=tmp_path / "cache")
    built = read_catalog(config)
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_bytes(kept.read_bytes()[:-7])

    assert_equal(read_catalog(config), built)
    assert "is damaged" in caplog.text


def test_a_shard_that_is_mixed_as_to_eod_is_refused_with_counts(
    write_shard: WriteShard, tmp_path: Path
) -> None:
    write_shard("web", [[5, 2]] * 3 + [[5, 6]] * 2)
    (tmp_path / "list").write_text("1 web")

    with pytest.raises(MixedEodError, match=r"web: 3 of 5 documents end in EOD \(2\)"):
        read_catalog(BlendConfig(data_file_list=tmp_path / "list", seq_length=4, eod_token_id=2))


@pytest.mark.parametrize(
    "text", ["2 web/web_0 web\n2 web/web_1 web", "1 web/web_1 web\n1 web/web_0 web",
             "1 web/web_0 a\n1 web/web_1 web"],
    ids=["weights", "paths", "corpora"],
)  # fmt: skip
def test_a_kept_catalog_of_another_list_is_built_again(
    write_blend: WriteBlend, tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    """Sound as it is, it was copied or renamed to the place of the right one."""
    kept = tmp_path / "kept"
    config = write_blend({"web": (2.0, [90, 90])}, seq_length=8, data_cache_path=kept)
    built = read_catalog(config)
    (right,) = kept.iterdir()
    (tmp_path / "other.txt").write_text(text)
    read_catalog(replace(config, data_file_list=tmp_path / "other.txt"))
    (wrong,) = (path for path in kept.iterdir() if path != right)
    wrong.rename(right)

    assert_equal(read_catalog(config), built)
    assert "the cached catalog is damaged, or of another file list" in caplog.text


def test_a_kept_catalog_that_contradicts_itself_is_built_again(
    write_blend: WriteBlend, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its checksum proves that it was kept so, not that it can be right."""
    config = write_blend({"web": (1.0, [500])}, seq_length=8, data_cache_path=tmp_path / "cache")
    built = read_catalog(config)
    (kept,) = (tmp_path / "cache").iterdir()
    payload = encode_catalog(replace(built, token_cuts=-built.token_cuts))
    kept.write_bytes(hashlib.blake2b(payload, digest_size=16).digest() + payload)

    assert_equal(read_catalog(config), built)
    assert "is damaged" in caplog.text


@pytest.mark.parametrize(
    ("column", "value"),
    [("weights", np.nan), ("weights", 0.0), ("dtype_codes", 7), ("dtype_codes", 99),
     ("num_sequences", 0), ("eod_roles", 3), ("document_cuts", -1), ("token_cuts", -1)],
)  # fmt: skip
def test_a_catalog_that_contradicts_itself_is_refused(
    write_blend: WriteBlend, column: str, value: float
) -> None:
    catalog = read_catalog(write_blend({"web": (1.0, [500, 90])}, seq_length=8))
    wrong = getattr(catalog, column).copy()
    wrong[1] = value

    with pytest.raises(CorruptShardError, match=rf"{column} of shard 1 cannot be right"):
        decode_catalog(encode_catalog(replace(catalog, **{column: wrong})))


def test_a_catalog_of_another_length_is_refused(write_blend: WriteBlend) -> None:
    data = encode_catalog(read_catalog(write_blend({"web": (1.0, [500])}, seq_length=8)))
    for wrong in (data[:-1], data + b"x", b"", data[8:]):
        with pytest.raises(CorruptShardError, match="the catalog is damaged"):
            decode_catalog(wrong)
