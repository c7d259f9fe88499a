"""The state: one counter, and proof that it belongs to the data."""

import contextlib
import copy
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blendtitan import BlendConfig, DataLoader, build_datasets
from blendtitan.dataset.build import read_catalog
from blendtitan.errors import ResumeError
from blendtitan.history.run import phases_of
from blendtitan.state import digest_of, digest_slots, encode_state
from blendtitan.storage.record_writer import write_folder_catalog
from blendtitan.storage.records import CATALOG_FILE, CatalogEntry
from tests.conftest import EOD, WriteBlend, WriteShard

CORPORA = {"web": (0.6, [700, 500]), "code": (0.4, [350])}


def loader(config: BlendConfig) -> DataLoader:
    return DataLoader(build_datasets(config).train, 4)


def test_it_is_one_string_under_one_key_the_same_on_every_rank(write_blend: WriteBlend) -> None:
    train = build_datasets(write_blend(CORPORA, seq_length=8)).train
    states = []
    for rank in range(3):
        one = DataLoader(train, 4, dp_rank=rank, dp_world_size=3)
        next(iter(one))
        states.append(one.state_dict())

    assert states[0] == states[1] == states[2]
    assert list(states[0]) == ["blendtitan"]
    state = json.loads(states[0]["blendtitan"])
    assert state["consumed_samples"] == 12
    assert state["order"] == 1
    assert state["segments"] == [{"first_slot": 0, "weights": {"code": 0.4, "web": 0.6}}]


@pytest.mark.parametrize(
    ("settings", "corpora", "message"),
    [
        ({"seed": 8}, CORPORA, "seed: checkpoint 7, now 8"),
        ({"seq_length": 9}, CORPORA, "seq_length: checkpoint 8, now 9"),
        (
            {"split": "90,5,5"},
            CORPORA,
            r"\(another split\), so .*\n  split: checkpoint 0\.98, 0\.01, 0\.01, now 0\.9, 0\.05, "
            r"0\.05\nRestore",
        ),
        ({"blend_sample_in_corpus": False}, CORPORA, "blend_sample_in_corpus: checkpoint True"),
        ({"shuffle_sample_in_corpus": False}, CORPORA, "shuffle_sample_in_corpus: checkpoint True"),
        (
            {"eod_token_id": 3, "seed": 8},
            CORPORA,
            r"(?s)\(another seed; another eod_token_id\), .* eod_token_id: checkpoint 2, now 3\nR",
        ),
        ({"append_eod": False}, CORPORA, "append_eod: checkpoint True, now False"),
        ({}, CORPORA | {"web": (0.5, [700, 500])}, r"shares\.web: checkpoint 0\.6, now 0\.5556"),
        (
            {},
            CORPORA | {"code": (0.4, [360])},
            r"corpora\.code\.tokens\.train: checkpoint 343, now 351",
        ),
        (
            {},
            CORPORA | {"new": (0.4, [360])},
            r"(?s)added: 'new'; other shares.*shares\.new: checkpoint None",
        ),
        (
            {},
            {"web": (0.6, [700, 500])},
            r"(?s)removed: 'code'.*shares\.code: checkpoint 0\.4, now None",
        ),
        ({}, CORPORA | {"web": (0.6, [500, 700])}, r"corpora\.web\.shards_digest"),
    ],
)
def test_any_difference_is_an_error_that_shows_both_sides(
    write_blend: WriteBlend, settings: dict[str, Any], corpora: dict[str, Any], message: str
) -> None:
    state = loader(write_blend(CORPORA, seq_length=8)).state_dict()
    other = loader(write_blend(corpora, **({"seq_length": 8} | settings)))

    with pytest.raises(ResumeError, match=message):
        other.load_state_dict(state)
    assert other.consumed_samples == 0


def relabelled(config: BlendConfig, text: str) -> BlendConfig:
    Path(config.data_file_list).write_text(text)
    return config


def test_shards_of_the_same_size_that_trade_places_are_noticed(write_blend: WriteBlend) -> None:
    """Each would be read in the other's order."""
    config = write_blend({"web": (1.0, [700, 700])}, seq_length=8)
    one = loader(relabelled(config, "1 web/web_0 web\n1 web/web_1 web"))
    other = loader(relabelled(config, "1 web/web_1 web\n1 web/web_0 web"))

    with pytest.raises(ResumeError, match=r"corpora\.web\.shards_digest"):
        other.load_state_dict(one.state_dict())


def test_documents_that_are_cut_elsewhere_are_noticed(
    write_blend: WriteBlend, write_shard: WriteShard
) -> None:
    config = relabelled(write_blend({"web": (1.0, [90])}, seq_length=2), "1 other")
    states = []
    for documents in ([[5, 6, 7], [8, 9]], [[5, 6], [7], [8, 9]]):
        write_shard("other", documents)
        states.append(loader(config).state_dict())

    with pytest.raises(ResumeError, match=r"shards_digest"):
        loader(config).load_state_dict(states[0])


def test_the_digest_covers_the_last_4096_samples(write_blend: WriteBlend) -> None:
    dataset = loader(write_blend(CORPORA, seq_length=8)).dataset

    assert digest_slots(0, 10_000).tolist() == list(range(5904, 10_000))
    assert digest_slots(0, 3).tolist() == [0, 1, 2]
    state = json.loads(encode_state(dataset, 10_000)["blendtitan"])
    assert state["digest"] == digest_of(dataset.sample_ids(np.arange(5904, 10_000)))


def test_every_difference_is_shown_at_once(write_blend: WriteBlend) -> None:
    state = loader(write_blend(CORPORA, seq_length=8)).state_dict()
    other = loader(write_blend(CORPORA, seq_length=16, seed=1))

    with pytest.raises(ResumeError, match=r"(?s)seed: .*seq_length: "):
        other.load_state_dict(state)


def test_the_digest_proves_the_order_of_the_last_samples(write_blend: WriteBlend) -> None:
    one = loader(write_blend(CORPORA, seq_length=8))
    next(iter(one))
    state = json.loads(one.state_dict()["blendtitan"])
    state["consumed_samples"] += 4

    with pytest.raises(ResumeError, match="other samples before sample 8"):
        one.load_state_dict({"blendtitan": json.dumps(state)})


@pytest.mark.parametrize(
    "saved",
    [{}, {"dp_rank_0": b"", "world_size": 1}, {"blendtitan": "{"}, {"blendtitan": "[]"},
     {"blendtitan": b"{}"}, {"blendtitan": '{"consumed_samples": -1}'},
     {"blendtitan": '{"consumed_samples": "1"}'},
     {"blendtitan": '{"consumed_samples": 10000000000000000000000}'}],
)  # fmt: skip
def test_a_state_that_is_none_of_ours_is_refused(
    write_blend: WriteBlend, saved: dict[str, Any]
) -> None:
    with pytest.raises(ResumeError, match="the loader's state has"):
        loader(write_blend(CORPORA, seq_length=8)).load_state_dict(saved)


def test_loading_restores_weights_to_the_last_bit(write_blend: WriteBlend) -> None:
    """A run that started with 0.1 + 0.2 continues with exactly this weight, not with 0.3."""
    state = loader(write_blend(CORPORA | {"web": (0.1 + 0.2, [900])}, seq_length=8)).state_dict()
    other = loader(write_blend(CORPORA | {"web": (0.3, [900])}, seq_length=8))
    other.load_state_dict(state)

    assert other.state_dict() == state


def test_data_may_have_moved(write_blend: WriteBlend, tmp_path: Path) -> None:
    one = loader(write_blend(CORPORA, seq_length=8))
    next(iter(one))
    moved = tmp_path.rename(tmp_path.with_name(f"{tmp_path.name}_moved"))
    other = loader(BlendConfig(data_file_list=moved / "web_code.txt", seq_length=8,
                               eod_token_id=2, seed=7))  # fmt: skip
    other.load_state_dict(one.state_dict())

    assert other.consumed_samples == 4


# The tokens themselves


def trained(config: BlendConfig, steps: int = 10) -> DataLoader:
    one = loader(config)
    batches = iter(one)
    for _ in range(steps):
        next(batches)
    return one


def write_over(config: BlendConfig, name: str) -> None:
    """Other tokens in the same places: the files keep their sizes."""
    path = Path(config.data_file_list).parent / f"{name}.bin"
    tokens = np.fromfile(path, "<u2")
    tokens[tokens != EOD] += 1
    tokens.tofile(path)


def test_a_shard_replaced_by_one_of_the_same_size_is_refused(write_blend: WriteBlend) -> None:
    """Resuming would train on other data without a word."""
    config = write_blend(CORPORA, seq_length=8)
    state = trained(config).state_dict()
    write_over(config, "web/web_1")

    with pytest.raises(ResumeError) as error:
        loader(config).load_state_dict(state)
    (line,) = [line for line in str(error.value).splitlines() if line.startswith("  ")]
    assert re.fullmatch(
        r"  corpus 'web', shard .*/web/web_1: \d+ of the last 40 samples "
        r"\(slot \d+: [0-9a-f]{8}, now [0-9a-f]{8}\)",
        line,
    )
    assert 'set blendcorpus.on_change = "new_segment" to train on their current tokens' in str(
        error.value
    )


@pytest.mark.parametrize("settings", [{"blend_sample_in_corpus": False}, {"append_eod": False}])
def test_it_is_noticed_however_shards_are_read(
    write_blend: WriteBlend, settings: dict[str, Any]
) -> None:
    config = write_blend(CORPORA, seq_length=8, **settings)
    state = trained(config).state_dict()
    write_over(config, "code/code_0")

    with pytest.raises(ResumeError, match="corpus 'code', shard"):
        loader(config).load_state_dict(state)


def list_checksums(config: BlendConfig, digests: dict[str, str], part_bytes: int = 700) -> None:
    """A ``shards.catalog`` above the corpora, as ``blendtitan tokenize`` leaves it."""
    catalog = read_catalog(config)
    entries = {
        name: CatalogEntry(
            documents=int(catalog.document_cuts[place, 3]),
            tokens=int(catalog.token_cuts[place, 3]),
            dtype="uint16",
            idx_digest="a",
            bin_digests=((part_bytes, digests.get(name, "b")), (10, "c")),
        )
        for place, prefix in enumerate(catalog.prefixes)
        for name in ["/".join(Path(prefix).parts[-2:])]
    }
    write_folder_catalog(Path(config.data_file_list).parent, entries)


def test_other_checksums_of_a_shard_are_refused_wherever_it_differs(
    write_blend: WriteBlend,
) -> None:
    """Nothing was read yet: no token could tell."""
    config = write_blend(CORPORA, seq_length=8)
    list_checksums(config, {})
    state = loader(config).state_dict()
    list_checksums(config, {"web/web_1": "x"})

    with pytest.raises(
        ResumeError, match=r"  corpus 'web', shard \S*/web/web_1: checksum \w+, now"
    ):
        loader(config).load_state_dict(state)


@pytest.mark.parametrize("change", ["no_catalog", "other_parts", "old_state"])
def test_checksums_that_cannot_be_compared_change_nothing(
    write_blend: WriteBlend, change: str
) -> None:
    """The same shard may be written in other parts, and copied without its catalog."""
    config = write_blend(CORPORA, seq_length=8)
    list_checksums(config, {})
    state = json.loads(loader(config).state_dict()["blendtitan"])
    if change == "no_catalog":
        (Path(config.data_file_list).parent / CATALOG_FILE).unlink()
    elif change == "other_parts":
        list_checksums(config, {"web/web_1": "x"}, part_bytes=690)
    else:
        del state["checksums"]
        list_checksums(config, {"web/web_1": "x"})
    one = loader(config)
    one.load_state_dict({"blendtitan": json.dumps(state)})

    assert one.consumed_samples == 0


def test_replaced_tokens_may_be_allowed_and_are_reported(
    write_blend: WriteBlend, caplog: pytest.LogCaptureFixture
) -> None:
    """The order is the same, so no new phase begins."""
    config = write_blend(CORPORA, seq_length=8, on_change="new_segment")
    state = trained(config).state_dict()
    write_over(config, "web/web_1")
    one = loader(config)
    one.load_state_dict(state)

    assert (one.consumed_samples, len(phases_of(one.dataset))) == (40, 1)
    assert "Shards no longer hold the tokens that the checkpoint was trained on." in caplog.text
    assert "/web/web_1: " in caplog.text


def test_a_state_without_digests_of_tokens_still_loads(write_blend: WriteBlend) -> None:
    """As releases before this check saved it."""
    config = write_blend(CORPORA, seq_length=8)
    state = json.loads(trained(config).state_dict()["blendtitan"])
    del state["recent_tokens"]
    one = loader(config)
    one.load_state_dict({"blendtitan": json.dumps(state)})

    assert one.consumed_samples == 40


def test_the_digests_cover_the_last_64_samples_of_the_phase(write_blend: WriteBlend) -> None:
    """Of long samples fewer, so that saving a state stays fast."""
    config = write_blend(CORPORA, seq_length=8, on_change="new_segment")
    state = trained(config, steps=30).state_dict()
    changed = loader(write_blend(CORPORA | {"web": (0.5, [700, 500])}, seq_length=8,
                                 on_change="new_segment"))  # fmt: skip
    changed.load_state_dict(state)
    lens = [len(json.loads(state["blendtitan"])["recent_tokens"])]
    for _ in range(2):
        lens.append(len(json.loads(changed.state_dict()["blendtitan"])["recent_tokens"]))
        next(iter(changed))

    assert [each // 8 for each in lens] == [64, 0, 4]


def test_a_state_is_saved_even_if_its_tokens_cannot_be_read(
    write_blend: WriteBlend, caplog: pytest.LogCaptureFixture
) -> None:
    """Losing a checkpoint is worse than losing a check."""
    config = write_blend(CORPORA, seq_length=8)
    one = loader(config)
    one.consumed_samples = 40
    (Path(config.data_file_list).parent / "web/web_1.bin").unlink()
    state = json.loads(one.state_dict()["blendtitan"])

    assert (state["consumed_samples"], state["recent_tokens"]) == (40, "")
    assert "saved without digests of the last 40 samples" in caplog.text


def paths_in(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value of a tree of dicts and lists, the tree itself last."""
    keys = tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield from paths_in(tree[key], (*path, key))
    yield path


def with_value(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A tree with another value in one place."""
    if not path:
        return value
    changed = copy.copy(tree)
    changed[path[0]] = with_value(tree[path[0]], path[1:], value)
    return changed


@pytest.mark.parametrize(
    "value", [None, True, -1, 0.5, math.nan, math.inf, 10**400, "x", [], [[]], [1], {}, {"web": 1}],
    ids=str,
)  # fmt: skip
def test_a_wrong_value_anywhere_is_an_error_of_ours_or_keeps_the_order(
    write_blend: WriteBlend, value: Any
) -> None:
    """A state comes from a file that may be damaged in any place."""
    one = loader(write_blend(CORPORA, seq_length=8))
    one.consumed_samples = 40
    state = json.loads(one.state_dict()["blendtitan"])
    slots = np.arange(500)
    right = one.dataset.sample_ids(slots)

    for path in paths_in(state):
        changed = with_value(state, path, value)
        with contextlib.suppress(ResumeError):
            one.load_state_dict({"blendtitan": json.dumps(changed)})
            assert (one.dataset.sample_ids(slots) == right).all(), path
