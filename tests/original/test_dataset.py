"""The original's order: what it was recorded to read, its horizon, its index files."""

import logging
import os
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blendtitan import BlendConfig, DataLoader, build_datasets
from blendtitan.config import SPLITS
from blendtitan.dataset.build import read_catalog
from blendtitan.dataset.fixed import fixed_samples
from blendtitan.dataset.interface import Dataset
from blendtitan.dataset.progress import progress
from blendtitan.errors import (
    ConfigError,
    CorruptShardError,
    EmptySplitError,
    MissingShardError,
    ResumeError,
    VocabularyError,
)
from blendtitan.original.build import original_indices
from blendtitan.original.index import COLUMNS, IndexFile, OrderIndex, checked_index
from blendtitan.original.order import (
    blend_of_corpora,
    corpus_samples,
    corpus_shuffle,
    samples_of_shards,
    shard_samples,
)
from blendtitan.state import encode_state, parse_state, resume
from tests.conftest import WriteBlend, numbered_documents
from tests.original_cases import CASES, case_config, case_settings, recorded

GLOBAL_BATCH = 4
CORPORA = {"web": (0.6, [300, 200]), "code": (0.4, [150])}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where indices are kept: no case is built more often than it must be."""
    return tmp_path_factory.mktemp("cache")


def train(config: BlendConfig) -> Dataset:
    dataset = build_datasets(config).train
    assert dataset is not None
    return dataset


def small(write_blend: WriteBlend, tmp_path: Path, **settings: Any) -> BlendConfig:
    """A blend of two corpora, for 40 samples of 8 tokens."""
    horizon = {"order": "blendcorpus", "train_samples": 40, "eval_samples": 0}
    folder = {"data_cache_path": tmp_path / "cache"}
    return write_blend(CORPORA, **{"seq_length": 8, "split": "1"} | horizon | folder | settings)


# What the original read


@pytest.mark.parametrize("name", CASES)
def test_every_sample_is_the_one_that_the_original_read(name: str, cache: Path) -> None:
    """Tokens, corpora and number of samples, of every split that was recorded."""
    datasets = build_datasets(case_config(name, cache))
    expected = recorded(name)
    for split in SPLITS:
        dataset = getattr(datasets, split)
        if split not in expected:
            assert dataset is None
            continue
        rows = expected[split]
        plan = dataset.plan(np.arange(len(rows)))

        assert dataset.num_windows == expected[f"{split}_len"]
        assert np.array_equal(dataset.read(plan, 0, len(rows)), rows)
        assert np.array_equal(plan.corpora, expected[f"{split}_corpus"])


@pytest.mark.parametrize("blend", [True, False])
@pytest.mark.parametrize("shuffle", [True, False])
def test_both_flags_join_the_samples_of_shards_as_the_original_does(
    write_blend: WriteBlend, tmp_path: Path, blend: bool, shuffle: bool
) -> None:
    """The recorded cases lack one combination: against its look-ups, one table after the other."""
    flags = {"blend_sample_in_corpus": blend, "shuffle_sample_in_corpus": shuffle}
    dataset = train(small(write_blend, tmp_path, train_samples=200, **flags))
    documents = [numbered_documents("code", 0, 150)]
    documents += [numbered_documents("web", place, size) for place, size in enumerate((300, 200))]
    asked = samples_of_shards([0.4, 0.3, 0.3], 200)
    shards = [
        shard_samples(
            np.array([len(document) for document in of_shard], np.int32),
            0,
            seq_len=8,
            num_samples=count,
            seed=7,
        )
        for of_shard, count in zip(documents, asked, strict=True)
    ]
    corpora, draws = blend_of_corpora([asked[0], asked[1] + asked[2]])
    assert len(corpora) == dataset.num_windows
    for slot in range(len(corpora)):
        own = [[0], [1, 2]][corpora[slot]]
        members, samples = corpus_samples([asked[shard] for shard in own], blend=blend)
        order = corpus_shuffle(len(members), shuffle=shuffle, seed=7)
        place = order[draws[slot]]
        shard = own[members[place]]
        row = [token for read in shards[shard].reads for token in documents[shard][read]]
        start = 8 * int(shards[shard].windows[samples[place]])

        assert dataset[slot].input_ids.tolist() == row[start : start + 8]


def test_a_sample_says_where_it_comes_from(cache: Path) -> None:
    name = "many_epochs"
    dataset = train(case_config(name, cache))
    rows, corpora = recorded(name)["train"], recorded(name)["train_corpus"]
    draws = [0, 0]
    epochs = []
    for slot in range(200):
        sample = dataset[slot]

        assert sample.input_ids.tolist() == rows[slot][:-1].tolist()
        assert sample.labels.tolist() == rows[slot][1:].tolist()
        assert sample.corpus == case_settings(name)["corpora_sorted"][corpora[slot]]
        assert Path(f"{sample.shard}.bin").name == f"{sample.corpus}_0.bin"
        assert sample.draw == draws[corpora[slot]]
        draws[corpora[slot]] += 1
        epochs += [sample.epoch] if sample.corpus == "small" else []
    assert dataset.draws_before(200).tolist() == draws
    assert max(epochs) >= 5


def test_draws_are_counted_across_blocks(cache: Path) -> None:
    """Where the counts that are kept end, slots are counted one by one."""
    dataset = train(case_config("three_corpora", cache, train_samples=9000))
    of_slots = dataset.plan(np.arange(dataset.num_windows)).corpora
    for slot in (0, 1, 4095, 4096, 4097, 8192, 9000, dataset.num_windows):
        counted = np.bincount(of_slots[:slot], minlength=3)

        assert dataset.draws_before(slot).tolist() == counted.tolist()


def test_one_corpus_alone_is_read_in_the_order_of_its_draws(cache: Path) -> None:
    """As validation reads it: what is draw ``d`` of the corpus is slot ``d``."""
    dataset = build_datasets(case_config("with_validation", cache)).valid
    assert dataset is not None
    samples = [dataset[slot] for slot in range(30)]
    for name in dataset.corpora:
        alone = dataset.only(name)
        of_corpus = [sample for sample in samples if sample.corpus == name]

        assert alone.corpora == (name,)
        for draw, sample in enumerate(of_corpus):
            assert alone[draw].labels.tolist() == sample.labels.tolist()
            assert alone[draw].draw == draw
        with pytest.raises(ConfigError, match=f"has {alone.num_windows} samples of valid"):
            alone[alone.num_windows]


def test_a_validation_reads_what_the_original_read_of_the_blend(cache: Path) -> None:
    """What fills up the last step is read again from what there is, and does not count."""
    dataset = build_datasets(case_config("with_validation", cache)).valid
    assert dataset is not None
    blend, *_ = fixed_samples(dataset, limit=32, samples_per_step=5)
    loader = DataLoader(dataset, 5, num_samples=blend.num_samples)
    labels = torch.cat([batch.labels for batch in loader])
    counted = labels[(labels != -100).any(dim=1)]
    whole = list(DataLoader(dataset, 5, num_samples=dataset.num_windows))

    assert np.array_equal(counted.numpy(), recorded("with_validation")["valid"][:, 1:])
    assert len(labels) == 35
    assert len(whole) == 7


def test_progress_is_that_of_the_slots_read(cache: Path) -> None:
    dataset = train(case_config("many_epochs", cache))
    reached = progress(dataset, 800)

    assert reached.tokens.tolist() == [320 * 64, 480 * 64]
    assert reached.configured_shares.tolist() == pytest.approx([0.4, 0.6])
    assert dataset.corpus_tokens.tolist() == [32156, 2699]


def test_documents_of_several_sequences_are_taken_apart(
    write_blend: WriteBlend, tmp_path: Path
) -> None:
    """The original knows sequences only: it shuffles and splits these."""
    config = small(write_blend, tmp_path)
    alone = train(config)
    rows = alone.read(alone.plan(np.arange(40)), 0, 40)
    for idx in tmp_path.rglob("*.idx"):
        join_all_documents(idx)
    (tmp_path / "cache").rename(tmp_path / "elsewhere")
    joined = train(config)

    assert np.array_equal(joined.read(joined.plan(np.arange(40)), 0, 40), rows)


def join_all_documents(idx: Path) -> None:
    """Rewrite the document index: one document of all sequences."""
    data = idx.read_bytes()
    sequences = int.from_bytes(data[18:26], "little")
    pair = np.array([0, sequences], "<i8").tobytes()
    two = (2).to_bytes(8, "little")
    idx.write_bytes(data[:26] + two + data[34 : 34 + 12 * sequences] + pair)


# The horizon


def test_slots_beyond_the_horizon_may_be_planned_but_not_read(cache: Path) -> None:
    dataset = train(case_config("one_shard", cache))
    plan = dataset.plan(np.arange(200, 10**6, 7))

    assert dataset.num_windows == 242
    assert dataset.read(plan, 0, 6).shape == (6, 65)  # slots 200 to 235
    with pytest.raises(ConfigError, match=r"slot 242 is requested, .* train_samples = 240 has 242"):
        dataset.read(plan, 5, 7)
    with pytest.raises(ConfigError, match=r"slot -1, expected 0 or more"):
        dataset[-1]
    with pytest.raises(ConfigError, match=r"243 samples are requested"):
        dataset.draws_before(243)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_fails_when_it_delivers_past_the_horizon_not_when_it_prefetches(
    cache: Path, num_workers: int
) -> None:
    dataset = train(case_config("one_shard", cache))
    loader = DataLoader(dataset, 11, num_workers=num_workers, prefetch=4)
    batches = iter(loader)

    assert len(list(islice(batches, 22))) == 22  # 242 samples
    with pytest.raises(ConfigError, match="slot 242 is requested"):
        next(batches)
    assert loader.consumed_samples == 242


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_samples": None}, "train_samples is missing"),
        ({"eval_samples": None}, "eval_samples is missing"),
        ({"train_samples": 0}, "train_samples is 0, expected a whole number of at least 1"),
        ({"eval_samples": -1}, "eval_samples is -1"),
        ({"data_cache_path": None}, "data_cache_path is missing"),
        ({"dataloader_type": "cyclic"}, "does not reproduce"),
        ({"seed": 2**32}, "seed is 4294967296, expected at most"),
        ({"order": "megatron"}, "order is 'megatron', expected one of blendtitan, blendcorpus"),
        ({"order": "blendtitan"}, "train_samples is 240, but order = 'blendtitan' does not"),
    ],
    ids=str,
)
def test_settings_that_do_not_go_together_are_refused(
    cache: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        case_config("one_shard", cache, **settings)


# Data


def test_a_shard_without_documents_in_a_used_split_is_named(
    write_blend: WriteBlend, tmp_path: Path
) -> None:
    """The original fails there, in the middle of its start."""
    config = small(write_blend, tmp_path, split="98,1,1", eval_samples=8)

    with pytest.raises(EmptySplitError, match=r"web_1: it has \d+ documents, none of them in the"):
        build_datasets(config)


def test_a_split_without_samples_is_not_used(write_blend: WriteBlend, tmp_path: Path) -> None:
    datasets = build_datasets(small(write_blend, tmp_path, split="98,1,1", eval_samples=0))

    assert datasets.train is not None
    assert datasets.valid is datasets.test is None


def test_documents_are_read_as_they_are(write_blend: WriteBlend, tmp_path: Path) -> None:
    """The original inserts no EOD; whoever asks for it is told."""
    settings = {"eod_token_id": 4999}  # no document ends in it
    with pytest.raises(ConfigError, match=r"do not end in EOD \(4999\).*append_eod = false"):
        build_datasets(small(write_blend, tmp_path, **settings))

    assert len(train(small(write_blend, tmp_path, append_eod=False, **settings))[0].labels) == 8


def test_a_missing_idx_is_named_even_with_a_cached_catalog(
    write_blend: WriteBlend, tmp_path: Path
) -> None:
    config = small(write_blend, tmp_path)
    catalog = read_catalog(config)
    next(tmp_path.rglob("web_1.idx")).unlink()

    with pytest.raises(MissingShardError, match=r"web_1\.idx: cannot be opened"):
        build_datasets(config, catalog)


def test_an_idx_that_changes_while_it_is_read_is_found_out(
    write_blend: WriteBlend, tmp_path: Path
) -> None:
    """Fewer tokens are there than the index says: none are made up."""
    dataset = train(small(write_blend, tmp_path))
    for idx in tmp_path.rglob("*.idx"):
        data = bytearray(idx.read_bytes())
        sequences = int.from_bytes(data[18:26], "little")
        pointers = slice(34 + 4 * sequences, 34 + 12 * sequences)
        data[pointers] = bytes(8 * sequences)
        idx.write_bytes(data)

    with pytest.raises(CorruptShardError, match=r"tokens for a sample, expected"):
        dataset.read(dataset.plan(np.arange(40)), 0, 40)


def test_errors_of_reading_say_where(write_blend: WriteBlend, tmp_path: Path) -> None:
    dataset = train(small(write_blend, tmp_path))
    sample = dataset[0]
    os.truncate(f"{sample.shard}.bin", 2)

    with pytest.raises(CorruptShardError, match="was truncated or replaced") as caught:
        dataset.read(dataset.plan(np.arange(8)), 0, 8)
    assert (
        f"while reading slot 0 of train: corpus '{sample.corpus}', shard {sample.shard}, "
        in (caught.value.__notes__[0])
    )


def test_a_token_beyond_the_vocabulary_is_named(write_blend: WriteBlend, tmp_path: Path) -> None:
    dataset = train(small(write_blend, tmp_path, vocab_size=200))

    with pytest.raises(VocabularyError, match=r"web_\d: document \d+ holds the token id \d+"):
        dataset.read(dataset.plan(np.arange(40)), 0, 40)


# Resume


def tokens_read(loader: DataLoader, batches: int) -> list[list[int]]:
    return [row for batch in islice(loader, batches) for row in batch.labels.tolist()]


@pytest.mark.parametrize("dp_world_size", [1, 2, 4])
def test_a_run_resumes_from_its_state_on_any_number_of_ranks(
    cache: Path, dp_world_size: int
) -> None:
    dataset = train(case_config("three_corpora", cache))
    before = DataLoader(dataset, GLOBAL_BATCH)
    read = tokens_read(before, 37)
    for rank in range(dp_world_size):
        loader = DataLoader(
            dataset, GLOBAL_BATCH // dp_world_size, dp_rank=rank, dp_world_size=dp_world_size
        )
        loader.load_state_dict(before.state_dict())
        slots = range(148 + rank * GLOBAL_BATCH // dp_world_size, 320, GLOBAL_BATCH)
        expected = recorded("three_corpora")["train"][:, 1:]

        assert tokens_read(loader, 43) == [
            expected[slot + i].tolist() for slot in slots for i in range(4 // dp_world_size)
        ]
    assert read == recorded("three_corpora")["train"][:148, 1:].tolist()


def test_a_step_of_the_original_is_where_it_says(cache: Path) -> None:
    """``consumed = step * global_batch_size``: a run begun there goes on here."""
    loader = DataLoader(train(case_config("three_corpora", cache)), 8)
    loader.set_consumed_by_global_step(17, 8)

    assert np.array_equal(
        next(iter(loader)).labels.numpy(), recorded("three_corpora")["train"][136:144, 1:]
    )


@pytest.mark.parametrize(
    ("settings", "difference"),
    [
        ({"train_samples": 400}, "train_samples: checkpoint 320, now 400"),
        ({"seed": 5}, "seed: checkpoint 1234, now 5"),
        ({"shuffle_sample_in_corpus": False}, "shuffle_sample_in_corpus: checkpoint True"),
    ],
    ids=str,
)
def test_a_state_of_another_order_is_refused(
    cache: Path, settings: dict[str, Any], difference: str
) -> None:
    state = encode_state(train(case_config("three_corpora", cache)), 160)

    with pytest.raises(ResumeError, match=difference):
        resume(parse_state(state), train(case_config("three_corpora", cache, **settings)))


def test_the_two_orders_do_not_take_each_others_states(cache: Path) -> None:
    original = case_config("three_corpora", cache)
    ours = case_config(
        "three_corpora", cache, order="blendtitan", train_samples=None, eval_samples=None
    )
    for saved, now in ((original, ours), (ours, original)):
        with pytest.raises(ResumeError, match=r"order: checkpoint"):
            resume(parse_state(encode_state(train(saved), 8)), train(now))


# Index files


def index_of(config: BlendConfig) -> Path:
    assert config.data_cache_path is not None
    (path,) = Path(config.data_cache_path).glob("order-*")
    return path


def test_an_index_is_built_once(
    write_blend: WriteBlend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(write_blend, tmp_path)
    first = train(config)
    monkeypatch.setattr("blendtitan.original.build.build_order", pytest.fail)

    assert train(config)[3].labels.tolist() == first[3].labels.tolist()


@pytest.mark.parametrize(
    "other",
    [{"seed": 8}, {"train_samples": 41}, {"seq_length": 9}, {"blend_sample_in_corpus": False},
     {"shuffle_sample_in_corpus": False}, {"split": "9,1,0"}],
    ids=str,
)  # fmt: skip
def test_whatever_the_order_depends_on_has_an_index_of_its_own(
    write_blend: WriteBlend, tmp_path: Path, other: dict[str, Any]
) -> None:
    for settings in ({}, other):
        train(small(write_blend, tmp_path, **settings))

    assert len(list((tmp_path / "cache").glob("order-*"))) == 2


def test_changed_documents_have_an_index_of_their_own(
    write_blend: WriteBlend, tmp_path: Path
) -> None:
    config = small(write_blend, tmp_path)
    train(config)
    os.utime(next(tmp_path.rglob("web_1.idx")), ns=(1, 1))
    train(config)

    assert len(list((tmp_path / "cache").glob("order-*"))) == 2


def places_of_damage(path: Path) -> list[int]:
    """Bytes of the header and of the text, and the first and last one of each column."""
    index = OrderIndex.open(IndexFile(str(path), digest_of(path)))
    columns = [index._columns[name] for name in COLUMNS]
    ends = [c.at + c.num_rows * c.dtype.itemsize - 1 for c in columns]
    return [0, 9, 20, *range(32, columns[0].at, 17), *(c.at for c in columns), *ends]


def digest_of(path: Path) -> str:
    found = checked_index(path)
    assert found is not None
    return found.digest


def test_a_damaged_index_is_built_again_with_a_warning(
    write_blend: WriteBlend, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever byte of it is another, and wherever it ends."""
    config = small(write_blend, tmp_path)
    train(config)
    path = index_of(config)
    whole = path.read_bytes()
    damaged = [
        whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in places_of_damage(path)
    ]
    damaged += [whole[:at] for at in (0, 7, 15, 100, len(whole) - 1)] + [whole + b"\0"]
    for content in damaged:
        path.write_bytes(content)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            train(config)

        assert "is damaged and is built again" in caplog.text
        assert path.read_bytes() == whole


def test_another_index_than_the_first_rank_has_is_an_error(
    write_blend: WriteBlend, tmp_path: Path
) -> None:
    """Other processes are told what to find, so that no two read different orders."""
    config = small(write_blend, tmp_path)
    train(config)
    path = index_of(config)
    with pytest.raises(ConfigError, match=r"expected abc, .*folder that all nodes share"):
        OrderIndex.open(IndexFile(str(path), "abc"))
    with pytest.raises(ConfigError, match=r"cannot be read .*folder that all nodes share"):
        OrderIndex.open(IndexFile(f"{path}-of-another-node", "abc"))


def test_a_folder_that_cannot_be_written_is_an_error(
    write_blend: WriteBlend, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    config = small(write_blend, tmp_path)
    cannot_write = small(write_blend, tmp_path, data_cache_path=tmp_path / "file" / "cache")
    with pytest.raises(ConfigError, match="data_cache_path is"):
        original_indices(cannot_write, read_catalog(config))


BUILD = """
import sys
from pathlib import Path
from tests.original_cases import case_config
from blendtitan import build_datasets
{before}
build_datasets(case_config("with_validation", Path(sys.argv[1])))
"""

DIE_WHILE_WRITING = """
import os, signal
from contextlib import contextmanager
from blendtitan.original import index as order_index
replaced_file = order_index.replaced_file

class Dying:
    def __init__(self, file):
        self.file, self.writes = file, 0
    def write(self, data):
        self.file.write(bytes(data)[: len(data) // 2])
        self.file.flush()
        self.writes += 1
        if self.writes == 3:
            os.kill(os.getpid(), signal.SIGKILL)

@contextmanager
def dying(path, **arguments):
    with replaced_file(path, **arguments) as file:
        yield Dying(file)

order_index.replaced_file = dying
"""


def start_building(folder: Path, before: str = "") -> subprocess.Popen[str]:
    code = BUILD.format(before=before)
    root = Path(__file__).parents[2]
    # What is small is sooner done than compiled.
    env = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    return subprocess.Popen([sys.executable, "-c", code, str(folder)], cwd=root, text=True, env=env)


def test_a_process_killed_while_it_writes_leaves_no_half_written_index(tmp_path: Path) -> None:
    assert start_building(tmp_path, DIE_WHILE_WRITING).wait(60) == -signal.SIGKILL
    left = list(tmp_path.glob("order-*"))

    assert left
    assert all(".partial-" in path.name for path in left)
    assert_reads_as_recorded(tmp_path)


def test_two_processes_that_build_at_once_both_have_it_whole(tmp_path: Path) -> None:
    """As where two runs start at the same time; nobody waits for anybody."""
    processes = [start_building(tmp_path) for _ in range(2)]

    assert [process.wait(60) for process in processes] == [0, 0]
    assert len(list(tmp_path.glob("order-*"))) == 3
    assert_reads_as_recorded(tmp_path)


def assert_reads_as_recorded(folder: Path) -> None:
    dataset = train(case_config("with_validation", folder))

    assert dataset[11].labels.tolist() == recorded("with_validation")["train"][11, 1:].tolist()
