"""Shards in object storage: read as local ones are, and never wrong or lost in silence."""

import multiprocessing
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blendtitan import BlendConfig, build_datasets, remote
from blendtitan.dataset.blended import BlendedDataset
from blendtitan.dataset.build import read_catalog
from blendtitan.errors import ConfigError, CorruptShardError, FileListError, MissingShardError
from blendtitan.files import url_of
from blendtitan.retries import RETRIES
from blendtitan.storage.catalog_bytes import decode_catalog, encode_catalog
from tests.conftest import WriteBlend
from tests.object_store import BUCKET, ObjectStore, serving


@pytest.fixture
def blend(write_blend: WriteBlend) -> BlendConfig:
    """Two corpora in the folders ``web`` and ``code``, listed in ``web_code.txt``."""
    return write_blend({"web": (0.7, [900, 500]), "code": (0.3, [700])}, seq_length=16)


def uploaded(store: ObjectStore, blend: BlendConfig) -> BlendConfig:
    """The same blend in object storage."""
    path = Path(str(blend.data_file_list))
    return replace(blend, data_file_list=f"{store.upload(path.parent)}/{path.name}")


def read(config: BlendConfig) -> np.ndarray:
    return read_slots(train(config), 0, 64)


def train(config: BlendConfig) -> BlendedDataset:
    dataset = build_datasets(config).train
    assert isinstance(dataset, BlendedDataset)
    return dataset


def read_slots(dataset: BlendedDataset, first: int, stop: int) -> np.ndarray:
    return dataset.read(dataset.plan(np.arange(first, stop)), 0, stop - first)


def test_tokens_are_those_of_local_files(store: ObjectStore, blend: BlendConfig) -> None:
    there = uploaded(store, blend)

    np.testing.assert_array_equal(read(there), read(blend))


@pytest.mark.parametrize("settings", [{"blend_sample_in_corpus": True}, {"append_eod": True}])
def test_other_layouts_are_those_of_local_files(
    store: ObjectStore, blend: BlendConfig, settings: dict[str, bool]
) -> None:
    there = uploaded(store, blend)

    np.testing.assert_array_equal(
        read(replace(there, **settings)), read(replace(blend, **settings))
    )


def test_a_folder_stands_for_the_shards_below_it(store: ObjectStore, blend: BlendConfig) -> None:
    here = Path(str(blend.data_file_list)).parent
    there = store.upload(here)
    folder = train(replace(blend, data_file_list=f"{BUCKET}/"))

    assert folder.corpora == ("code", "web")
    assert folder.catalog.prefixes[0] == f"{there}/code/code_0"
    np.testing.assert_array_equal(
        read_slots(folder, 0, 64), read(replace(blend, data_file_list=here))
    )


def test_a_local_list_names_shards_by_url(
    store: ObjectStore, blend: BlendConfig, tmp_path: Path
) -> None:
    there = store.upload(Path(str(blend.data_file_list)).parent)
    mixed = tmp_path / "mixed.txt"
    mixed.write_text(
        f"0.35 {there}/web/web_0 web\n0.35 {tmp_path}/web/web_1 web\n"
        f"0.3 {there}/lists/../code/code_0 code\n"
    )

    np.testing.assert_array_equal(read(replace(blend, data_file_list=mixed)), read(blend))


def test_only_the_windows_are_read_and_neighbours_together(
    store: ObjectStore, blend: BlendConfig
) -> None:
    rows = {"shuffle_sample_in_corpus": False, "blend_sample_in_corpus": False}
    dataset = train(replace(uploaded(store, blend), **rows))
    store.requests.clear()
    read_slots(dataset, 0, 20)

    # 14 and 6 windows of 16 tokens of 2 bytes, which share one token.
    found = {(each.path, each.bytes) for each in store.requests}
    assert found == {
        ("/bucket/web/web_0.bin", (0, (14 * 16 + 1) * 2)),
        ("/bucket/code/code_0.bin", (0, (6 * 16 + 1) * 2)),
    }


def test_few_requests_find_many_shards(store: ObjectStore, write_blend: WriteBlend) -> None:
    blend = write_blend({"web": (1.0, [50] * 30)}, seq_length=8)
    train(uploaded(store, blend))

    lists = [each for each in store.requests if each.path == "/bucket"]
    heads = [each for each in store.requests if each.method == "HEAD"]
    assert len(lists) == 1
    assert [each.path for each in heads] == ["/bucket/web.txt", "/bucket/shards.catalog"]


@pytest.mark.parametrize("fault", ["503", "429", "truncated", "reset"])
def test_faults_that_pass_are_survived(store: ObjectStore, blend: BlendConfig, fault: str) -> None:
    dataset = train(uploaded(store, blend))
    store.faults = [fault] * 5

    np.testing.assert_array_equal(read_slots(dataset, 0, 64), read(blend))
    assert store.faults == []


def test_a_fault_that_stays_ends_in_one_error(store: ObjectStore, blend: BlendConfig) -> None:
    dataset = train(uploaded(store, blend))
    store.faults = ["503"] * 1000

    with pytest.raises(
        MissingShardError,
        match=r"^s3://bucket/(web|code)/\w+\.bin: cannot be read \(.*503.*retries",
    ) as caught:
        read_slots(dataset, 0, 4)
    assert "secret" not in str(caught.value)


def test_a_replaced_object_is_an_error(store: ObjectStore, blend: BlendConfig) -> None:
    dataset = train(uploaded(store, blend))
    store.put("web/web_0.bin", bytes(900 * 2))

    with pytest.raises(CorruptShardError, match=r"s3://bucket/web/web_0\.bin: was replaced"):
        read_slots(dataset, 0, 64)


@pytest.mark.parametrize("e_tag", ["", "W/", None])
def test_a_web_server_need_not_compare_etags(
    blend: BlendConfig, tmp_path: Path, e_tag: str | None
) -> None:
    """A file replaced by one of the same size is found, whatever the server says of it."""
    path = Path(str(blend.data_file_list))
    with serving(path.parent, e_tag) as url:
        there = replace(
            blend, data_file_list=f"{url}/{path.name}", data_cache_path=tmp_path / "kept"
        )
        dataset = train(there)
        np.testing.assert_array_equal(read_slots(dataset, 0, 64), read(blend))
        web = tmp_path / "web/web_0.bin"
        web.write_bytes(bytes(web.stat().st_size))
        os.utime(web, (0, 86400))

        with pytest.raises(CorruptShardError, match=r"web_0\.bin: was replaced"):
            read_slots(dataset, 0, 64)
        remote.forget()
        train(there)
        assert len([*(tmp_path / "kept").iterdir()]) == 2


def test_names_of_objects_may_hold_any_character(store: ObjectStore, blend: BlendConfig) -> None:
    folder = Path(str(blend.data_file_list)).parent
    name = "what? #1 50%/é&="
    for suffix in (".idx", ".bin"):
        store.put(f"{name}{suffix}", (folder / f"code/code_0{suffix}").read_bytes())
    store.put("odd.txt", f'1 "{name}" code'.encode())

    assert len(train(replace(blend, data_file_list=f"{BUCKET}/odd.txt")).catalog.prefixes) == 1


@pytest.mark.parametrize("url", ["https://user:hush@host/list.txt", "http://host/list.txt?s=hush"])
def test_a_url_holds_no_secret(blend: BlendConfig, url: str) -> None:
    with pytest.raises(ConfigError, match=r"//host/list\.txt: found a URL with a pass") as caught:
        train(replace(blend, data_file_list=url))
    assert "hush" not in str(caught.value)


def test_a_forked_process_gets_an_error_in_place_of_waiting_forever(
    store: ObjectStore, blend: BlendConfig
) -> None:
    dataset = train(uploaded(store, blend))
    read_slots(dataset, 0, 64)

    receiver, sender = multiprocessing.Pipe(duplex=False)

    def child() -> None:
        try:
            read_slots(dataset, 64, 128)
        except ConfigError as error:
            sender.send(str(error))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    process.kill()
    assert receiver.poll()
    assert "forked from one that read object storage" in receiver.recv()


def test_a_vanished_object_is_an_error(store: ObjectStore, blend: BlendConfig) -> None:
    dataset = train(uploaded(store, blend))
    store.delete("web/web_0.bin")

    with pytest.raises(MissingShardError, match=r"s3://bucket/web/web_0\.bin: cannot be read \(no"):
        read_slots(dataset, 0, 64)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("absent.txt", FileListError, "s3://bucket/absent.txt: there is no such file or folder"),
        ("bad.txt", MissingShardError, r"s3://bucket/web/web_9\.idx: cannot be opened"),
        ("half.txt", MissingShardError, r"half\.bin: .*half\.idx exists, so the copy is incom"),
    ],
)
def test_what_is_missing_is_named(
    store: ObjectStore, blend: BlendConfig, name: str, error: type[Exception], message: str
) -> None:
    uploaded(store, blend)
    store.put("bad.txt", b"1 web/web_9 web")
    store.put("half.txt", b"1 half web")
    store.put("half.idx", (Path(str(blend.data_file_list)).parent / "web/web_0.idx").read_bytes())

    with pytest.raises(error, match=message):
        train(replace(blend, data_file_list=f"{BUCKET}/{name}"))


def test_credentials_are_needed_and_the_error_says_so(
    store: ObjectStore, blend: BlendConfig
) -> None:
    there = uploaded(store, blend)
    store.refuses = lambda method, path: True

    with pytest.raises(FileListError, match="permission"):
        train(there)


def test_a_bucket_that_may_not_be_listed_is_read_file_by_file(
    store: ObjectStore, blend: BlendConfig
) -> None:
    there, before = uploaded(store, blend), RETRIES.total
    store.refuses = lambda method, path: path == "/bucket"

    np.testing.assert_array_equal(read(there), read(blend))
    assert RETRIES.total == before


def test_a_url_of_another_kind_is_refused(blend: BlendConfig) -> None:
    with pytest.raises(ConfigError, match="hf://"):
        replace(blend, data_file_list="hf://datasets/x")


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("s3://bucket/a/b", "s3://bucket/a/b"),
        ("s3:/bucket/a/b", "s3://bucket/a/b"),
        (Path("s3://bucket/a/b"), "s3://bucket/a/b"),
        ("gs://bucket/a/../b/", "gs://bucket/b"),
        ("https://host/a", "https://host/a"),
        ("/data/s3://a", None),
        ("s3", None),
        ("data/a", None),
    ],
)
def test_urls_are_found_among_paths(path: str | Path, url: str | None) -> None:
    assert url_of(path) == url


def test_a_kept_catalog_is_read_again_until_an_object_changes(
    store: ObjectStore, blend: BlendConfig, tmp_path: Path
) -> None:
    there = replace(uploaded(store, blend), data_cache_path=tmp_path / "kept")
    train(there)
    store.requests.clear()
    remote.forget()
    train(there)

    got = [each.path for each in store.requests if each.method == "GET"]
    assert not [path for path in got if path.endswith((".idx", ".bin"))]
    store.put("web/web_0.bin", bytes(900 * 2))
    remote.forget()
    train(there)
    assert len([*(tmp_path / "kept").iterdir()]) == 2


@pytest.mark.parametrize(
    "settings",
    [{}, {"append_eod": True}, {"order": "blendcorpus", "train_samples": 64, "eval_samples": 0}],
    ids=str,
)
def test_another_process_notices_that_a_bin_is_not_the_one_of_the_catalog(
    store: ObjectStore, blend: BlendConfig, tmp_path: Path, settings: dict[str, Any]
) -> None:
    """It opens shards long after the catalog was built."""
    there = replace(uploaded(store, blend), data_cache_path=tmp_path / "kept", **settings)
    catalog = decode_catalog(encode_catalog(read_catalog(there)))
    store.put("web/web_0.bin", bytes(900 * 2))
    remote.forget()
    dataset = build_datasets(there, catalog).train

    assert dataset is not None
    with pytest.raises(CorruptShardError, match=r"s3://bucket/web/web_0\.bin: was replaced"):
        dataset.read(dataset.plan(np.arange(64)), 0, 64)


def test_another_process_notices_that_an_idx_is_not_the_one_of_the_catalog(
    store: ObjectStore, blend: BlendConfig
) -> None:
    """One of the same size, with other documents, would move every boundary after them."""
    # No document ends in this EOD, so it is inserted where the .idx says that one ends.
    there = replace(uploaded(store, blend), append_eod=True, eod_token_id=0)
    catalog = decode_catalog(encode_catalog(read_catalog(there)))
    for name in ("web/web_0", "web/web_1", "code/code_0"):
        content = bytearray((Path(f"{blend.data_file_list}").parent / f"{name}.idx").read_bytes())
        content[34:42] = content[38:42] + content[34:38]  # the lengths of two documents
        store.put(f"{name}.idx", bytes(content))
    remote.forget()
    dataset = build_datasets(there, catalog).train

    assert dataset is not None
    with pytest.raises(CorruptShardError, match=r"s3://bucket/\w+/\w+\.idx: was replaced"):
        dataset.read(dataset.plan(np.arange(64)), 0, 64)
