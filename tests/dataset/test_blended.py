"""Datasets: any slot, in the order of the design, with the tokens that lie on disk."""

from collections import defaultdict
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendtitan import BlendConfig, BlendedDataset, build_datasets
from blendtitan.dataset import build
from blendtitan.dataset.build import read_catalog
from blendtitan.errors import ConfigError, EmptySplitError, MixedEodError, VocabularyError
from tests.conftest import EOD, WriteBlend, WriteShard, numbered_documents

FLAGS = pytest.mark.parametrize(
    "flags",
    [
        {"blend_sample_in_corpus": blend, "shuffle_sample_in_corpus": shuffle}
        for blend in (True, False)
        for shuffle in (True, False)
    ],
    ids=str,
)
CORPORA = {"web": (0.6, [300, 200]), "code": (0.3, [150]), "books": (0.1, [40, 90, 60])}

# By blend_sample_in_corpus and shuffle_sample_in_corpus.
GOLDEN = {
    (True, True): [
        ("web_0", 0, 1, 11), ("code_0", 0, 3, 2), ("web_0", 0, 9, 75),
        ("code_1", 0, 2, 5019), ("web_0", 0, 8, 67), ("web_0", 0, 3, 2),
        ("web_0", 1, 10, 86), ("code_0", 0, 5, 43), ("web_0", 5, 10, 85),
        ("code_0", 2, 0, 4), ("web_0", 50000000000, 9, 77),
    ],
    (True, False): [
        ("web_0", 0, 0, 2), ("code_0", 0, 0, 3), ("web_0", 0, 1, 11),
        ("code_1", 0, 0, 5003), ("web_0", 0, 2, 19), ("web_0", 0, 3, 2),
        ("web_0", 1, 6, 54), ("code_0", 0, 6, 51), ("web_0", 5, 0, 5),
        ("code_0", 2, 6, 2), ("web_0", 50000000000, 0, 5),
    ],
    (False, True): [
        ("web_0", 0, 2, 19), ("code_0", 0, 3, 2), ("web_0", 0, 1, 11),
        ("code_0", 0, 5, 43), ("web_0", 0, 3, 2), ("web_0", 0, 9, 75),
        ("web_0", 1, 11, 94), ("code_0", 1, 1, 12), ("web_0", 5, 9, 75),
        ("code_0", 3, 3, 2), ("web_0", 50000000000, 4, 38),
    ],
    (False, False): [
        ("web_0", 0, 0, 2), ("code_0", 0, 0, 3), ("web_0", 0, 1, 11),
        ("code_0", 0, 1, 11), ("web_0", 0, 2, 19), ("web_0", 0, 3, 2),
        ("web_0", 1, 6, 54), ("code_0", 1, 1, 12), ("web_0", 5, 0, 2),
        ("code_0", 3, 7, 60), ("web_0", 50000000000, 0, 6),
    ],
}  # fmt: skip


def train(config: BlendConfig) -> BlendedDataset:
    dataset = build_datasets(config).train
    assert isinstance(dataset, BlendedDataset)
    return dataset


def tokens_of(name: str, place: int, size: int) -> list[int]:
    return [token for document in numbered_documents(name, place, size) for token in document]


def test_the_interface_of_the_readme(write_blend: WriteBlend) -> None:
    config = write_blend(CORPORA, seq_length=16)
    sample = build_datasets(config).train[10**12]

    assert sample.input_ids.shape == sample.labels.shape == (16,)
    assert sample.input_ids.dtype == sample.labels.dtype == np.int64
    assert sample.input_ids[1:].tolist() == sample.labels[:-1].tolist()
    assert sample.corpus in CORPORA
    assert Path(f"{sample.shard}.bin").exists()
    assert min(sample.draw, sample.epoch, sample.window) >= 0


@FLAGS
def test_every_window_of_an_epoch_comes_exactly_once(
    write_blend: WriteBlend, flags: dict[str, bool]
) -> None:
    """In every epoch of every row: none missing, none twice."""
    dataset = train(write_blend(CORPORA, seq_length=8, split="1", **flags))
    plan = dataset.plan(np.arange(2000))
    windows: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row, epoch, window in zip(
        plan.places.rows, plan.places.epochs, plan.places.windows, strict=True
    ):
        windows[row, epoch].append(int(window))
    sizes = [CORPORA[name][1] for name in sorted(CORPORA)]
    if flags["blend_sample_in_corpus"]:
        tokens_of_row = [size for shards in sizes for size in shards]
    else:
        tokens_of_row = [sum(shards) for shards in sizes]
    for (row, epoch), seen in windows.items():
        num_windows = (tokens_of_row[row] - 1) // 8
        is_complete = (row, epoch + 1) in windows

        assert len(seen) == num_windows if is_complete else len(seen) <= num_windows
        assert set(seen) <= set(range(num_windows))
        assert len(set(seen)) == len(seen)
        if not flags["shuffle_sample_in_corpus"]:
            assert seen == sorted(seen)
    assert len(windows) > 10


@FLAGS
def test_a_window_holds_the_tokens_of_its_row(
    write_blend: WriteBlend, flags: dict[str, bool]
) -> None:
    """Against rows put together by hand, also across shards and in shifted epochs."""
    dataset = train(write_blend(CORPORA, seq_length=8, split="1", **flags))
    plan = dataset.plan(np.arange(600))
    for slot in range(600):
        sample = dataset[slot]
        sizes = CORPORA[sample.corpus][1]
        places = range(len(sizes))
        if flags["blend_sample_in_corpus"]:
            places = [int(sample.shard[-1])]
        row = [token for i in places for token in tokens_of(sample.corpus, i, sizes[i])]
        start = int(plan.places.starts[slot])
        shift = start - 8 * sample.window

        assert [*sample.input_ids, sample.labels[-1]] == row[start : start + 9]
        assert 0 <= shift <= (len(row) - 1) % 8
        assert sample.epoch > 0 or shift == 0


@pytest.mark.parametrize("slot", [0, 999, 10**6, 10**12])
def test_random_access_equals_sequential_access(write_blend: WriteBlend, slot: int) -> None:
    dataset = train(write_blend(CORPORA, seq_length=8))
    block = dataset.plan(np.arange(slot, slot + 100))
    tokens = dataset.read(block, 0, 100)
    for i in (99, 0, 57):
        sample = dataset[slot + i]

        assert tokens[i].tolist() == [*sample.input_ids, sample.labels[-1]]
        assert sample.draw == block.places.draws[i]


def order_within(dataset: BlendedDataset, corpus: str, count: int) -> list[tuple[int, int, int]]:
    samples = (dataset[slot] for slot in range(10_000))
    own = (s for s in samples if s.corpus == corpus)
    return [(s.draw, s.epoch, s.window) for s in islice(own, count)]


def test_adding_a_corpus_leaves_the_order_within_the_others(write_blend: WriteBlend) -> None:
    few = train(write_blend({"web": (1.0, [300, 200]), "code": (1.0, [150])}, seq_length=8))
    many = train(write_blend({"aaa": (1.0, [80]), "web": (1.0, [300, 200]), "code": (1.0, [150])},
                             seq_length=8))  # fmt: skip
    for corpus in ("web", "code"):
        assert order_within(few, corpus, 100) == order_within(many, corpus, 100)


def test_changing_shares_leaves_the_order_within_the_corpora(write_blend: WriteBlend) -> None:
    one = train(write_blend({"web": (9.0, [300, 200]), "code": (1.0, [150])}, seq_length=8))
    other = train(write_blend({"web": (1.0, [300, 200]), "code": (3.0, [150])}, seq_length=8))
    for corpus in ("web", "code"):
        assert order_within(one, corpus, 60) == order_within(other, corpus, 60)


def test_moving_the_data_to_another_folder_changes_nothing(
    write_blend: WriteBlend, tmp_path: Path
) -> None:
    config = write_blend(CORPORA, seq_length=8)
    before = train(config).plan(np.arange(500)).places.sample_ids
    moved = tmp_path.rename(tmp_path.with_name(f"{tmp_path.name}_moved"))
    list_path = moved / Path(config.data_file_list).name
    after = train(BlendConfig(data_file_list=list_path, seq_length=8, eod_token_id=EOD, seed=7))

    assert before.tolist() == after.plan(np.arange(500)).places.sample_ids.tolist()


def test_another_seed_gives_another_order(write_blend: WriteBlend) -> None:
    one, other = (train(write_blend(CORPORA, seq_length=8, seed=seed)) for seed in (1, 2))

    assert order_within(one, "web", 20) != order_within(other, "web", 20)


def test_epochs_are_shuffled_differently(write_blend: WriteBlend) -> None:
    dataset = train(write_blend({"web": (1.0, [300])}, seq_length=8, split="1"))
    windows = dataset.plan(np.arange(3 * 37)).places.windows.reshape(3, 37).tolist()

    assert windows[0] != windows[1] != windows[2] != windows[0]


@FLAGS
def test_golden_order(write_blend: WriteBlend, flags: dict[str, bool]) -> None:
    """The order is a public interface: only a new order version may change these.

    Of each sample the shard, the epoch, the window and the first token, which shows the shift.
    """
    corpora = {"web": (0.6, [100]), "code": (0.4, [60, 30])}
    dataset = train(write_blend(corpora, seq_length=8, **flags))
    samples = [dataset[slot] for slot in (0, 1, 2, 3, 4, 5, 30, 31, 100, 101, 10**12)]
    facts = [(Path(s.shard).name, s.epoch, s.window, int(s.input_ids[0])) for s in samples]

    assert facts == GOLDEN[tuple(flags.values())]


def test_splits_share_no_document(write_blend: WriteBlend) -> None:
    datasets = build_datasets(write_blend({"web": (1.0, [900])}, seq_length=8, split="60,20,20"))
    seen = []
    for dataset in (datasets.train, datasets.valid, datasets.test):
        assert isinstance(dataset, BlendedDataset)
        plan = dataset.plan(np.arange(dataset.num_windows))
        tokens = dataset.read(plan, 0, dataset.num_windows)
        seen.append(set(tokens.ravel().tolist()) - {EOD})
    # Tokens are numbered through, so that each stands for its place.
    for earlier, later in pairwise(seen):
        assert max(earlier) < min(later)


def test_a_split_that_nothing_is_given_to_is_none(write_blend: WriteBlend) -> None:
    datasets = build_datasets(write_blend(CORPORA, seq_length=8, split="1"))

    assert datasets.valid is None
    assert datasets.test is None


def test_a_corpus_without_validation_documents_is_left_out_and_named(
    write_blend: WriteBlend, caplog: pytest.LogCaptureFixture
) -> None:
    config = write_blend({"web": (1.0, [2000]), "tiny": (1.0, [20])}, seq_length=8)
    valid = build_datasets(config).valid

    assert valid is not None
    assert valid.corpora == ("web",)
    assert "no documents for valid, so excluded from it: tiny" in caplog.text


def test_a_shard_left_out_of_a_split_changes_neither_shares_nor_the_order_of_others(
    write_blend: WriteBlend,
) -> None:
    """Its corpus keeps its weight, and the other shards keep their places."""
    valid = []
    for first in (2000, 6):
        corpora = {"web": (0.5, [first, 2000]), "code": (0.5, [2000])}
        dataset = build_datasets(write_blend(corpora, seq_length=8, split="80,20,0")).valid
        assert isinstance(dataset, BlendedDataset)
        valid.append([dataset[slot] for slot in range(400)])
    share = [sum(s.corpus == "web" for s in samples) for samples in valid]
    second_shard = [[s.window for s in samples if "web_1" in s.shard][:50] for samples in valid]

    assert share == [200, 200]
    assert not any("web_0" in s.shard for s in valid[1])
    assert second_shard[0] == second_shard[1]


def test_a_shard_without_training_documents_is_reported(
    write_shard: WriteShard, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_shard("a", [[5, 6, 2]] * 10)
    write_shard("b", [[5, 6, 2]])
    (tmp_path / "list").write_text("1 a x\n9 b x")
    train(BlendConfig(data_file_list=tmp_path / "list", seq_length=4, eod_token_id=2,
                      split="30,70,0"))  # fmt: skip

    assert "train: 1 of 2 shards are too small" in caplog.text


def test_a_corpus_without_training_documents_is_an_error(write_blend: WriteBlend) -> None:
    """Its share could not be met, and leaving it out would change the others' shares."""
    config = write_blend({"web": (1.0, [900]), "tiny": (1.0, [6])}, seq_length=8, split="1,98,1")

    with pytest.raises(EmptySplitError, match="corpus 'tiny' has no documents for training"):
        build_datasets(config)


def test_a_row_shorter_than_a_window_wraps_around_with_a_warning(
    write_shard: WriteShard, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_shard("web", [[10, 11, 2]])
    (tmp_path / "list").write_text("1 web")
    dataset = train(BlendConfig(data_file_list=tmp_path / "list", seq_length=8, eod_token_id=2))

    assert dataset[0].input_ids.tolist() == [10, 11, 2, 10, 11, 2, 10, 11]
    assert dataset[0].labels.tolist() == [11, 2, 10, 11, 2, 10, 11, 2]
    assert "shards have fewer than training.seq_len + 1" in caplog.text


@given(
    documents=st.lists(st.lists(st.integers(3, 99), max_size=12), min_size=1, max_size=40),
    seq_len=st.integers(1, 30),
    flag=st.booleans(),
)
def test_eod_is_inserted_as_if_it_had_been_written(
    tmp_path_factory: pytest.TempPathFactory,
    documents: list[list[int]],
    seq_len: int,
    flag: bool,
) -> None:
    """Shards without EOD give the same samples as shards with it, in every split."""
    from blendtitan.storage.writer import ShardWriter

    if not any(documents):
        return
    folder = tmp_path_factory.mktemp("eod")
    for name, eod in (("with", [EOD]), ("without", [])):
        for part, docs in enumerate((documents, documents[::-1])):
            prefix = folder / name / f"part_{part}"
            with ShardWriter.create(prefix, dtype=np.dtype("<u2")) as writer:
                for document in docs:
                    writer.add_document(np.array(document + eod, np.int64))
        lines = [f"1 {name}/part_{part} corpus" for part in (0, 1)]
        (folder / f"{name}.txt").write_text("\n".join(lines))
    with_eod, without = (
        build_datasets(
            BlendConfig(data_file_list=folder / f"{name}.txt", seq_length=seq_len, eod_token_id=EOD,
                        split="50,30,20", blend_sample_in_corpus=flag)
        )
        for name in ("with", "without")
    )  # fmt: skip
    for split in ("train", "valid", "test"):
        one, other = getattr(with_eod, split), getattr(without, split)
        if one is None:
            assert other is None
            continue
        for slot in range(40):
            expected, found = one[slot], other[slot]
            assert expected.input_ids.tolist() == found.input_ids.tolist()
            assert expected.labels.tolist() == found.labels.tolist()


def test_without_append_eod_documents_stay_as_they_are(
    write_shard: WriteShard, tmp_path: Path
) -> None:
    write_shard("web", [[10, 11], [12, 13, 14], [15, 2]])
    (tmp_path / "list").write_text("1 web")
    dataset = train(
        BlendConfig(data_file_list=tmp_path / "list", seq_length=6, append_eod=False, split="1")
    )

    assert dataset[0].input_ids.tolist() == [10, 11, 12, 13, 14, 15]


def test_a_document_that_ends_in_eod_among_others_that_do_not_is_found_while_reading(
    write_shard: WriteShard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a sample of documents is looked at when a large shard is opened."""
    monkeypatch.setattr("blendtitan.storage.catalog._ENDS_BYTES", 0)
    monkeypatch.setattr("blendtitan.storage.ends._STRETCH_DOCUMENTS", 1)
    documents = [[10 + i, 11 + i] for i in range(50)]
    documents[5] = [9, EOD]
    write_shard("web", documents)
    (tmp_path / "list").write_text("1 web")
    dataset = train(
        BlendConfig(data_file_list=tmp_path / "list", seq_length=30, eod_token_id=EOD, split="1",
                    shuffle_sample_in_corpus=False)
    )  # fmt: skip

    with pytest.raises(MixedEodError, match="web: document 5 ends in EOD"):
        dataset[0]


def test_an_eod_that_does_not_fit_the_shards_type_is_inserted_all_the_same(
    write_shard: WriteShard, tmp_path: Path
) -> None:
    write_shard("web", [[10, 11], [12, 13]])
    (tmp_path / "list").write_text("1 web")
    dataset = train(
        BlendConfig(data_file_list=tmp_path / "list", seq_length=5, eod_token_id=70_000, split="1")
    )

    assert dataset[0].input_ids.tolist() == [10, 11, 70_000, 12, 13]
    assert dataset[0].labels[-1] == 70_000


def test_a_negative_token_is_outside_the_vocabulary(
    write_shard: WriteShard, tmp_path: Path
) -> None:
    write_shard("web", [[5, -7, 2], [6, 7, 2]], "<i4")
    (tmp_path / "list").write_text("1 web")
    dataset = train(
        BlendConfig(data_file_list=tmp_path / "list", seq_length=5, eod_token_id=2, split="1",
                    vocab_size=50)
    )  # fmt: skip

    with pytest.raises(VocabularyError, match="document 0 holds the token id -7"):
        dataset[0]


@pytest.mark.parametrize("dtype", ["<u2", "<i4"])
def test_a_token_outside_the_vocabulary_is_named_with_shard_document_and_id(
    write_shard: WriteShard, tmp_path: Path, dtype: str
) -> None:
    write_shard("web", [[5, 2], [6, 7, 2], [8, 50, 2]], dtype)
    (tmp_path / "list").write_text("1 web")
    dataset = train(
        BlendConfig(data_file_list=tmp_path / "list", seq_length=6, eod_token_id=2, split="1",
                    vocab_size=50)
    )  # fmt: skip

    with pytest.raises(VocabularyError, match="web: document 2 holds the token id 50") as caught:
        dataset[0]
    assert "while reading slot 0 of train: corpus 'web'" in caught.value.__notes__[0]


def test_shards_of_different_types_blend(write_shard: WriteShard, tmp_path: Path) -> None:
    write_shard("small", [[5, 6, 7, 8, 2]])
    write_shard("large", [[70_000, 70_001, 70_002, 70_003, 2]], "<i4")
    (tmp_path / "list").write_text("1 small\n1 large")
    dataset = train(
        BlendConfig(data_file_list=tmp_path / "list", seq_length=4, eod_token_id=2, split="1")
    )
    samples = {s.corpus: s.input_ids.tolist() for s in (dataset[0], dataset[1])}

    assert samples == {"small": [5, 6, 7, 8], "large": [70_000, 70_001, 70_002, 70_003]}


def test_slots_from_0_to_10_to_the_15_exist(write_blend: WriteBlend) -> None:
    dataset = train(write_blend(CORPORA, seq_length=8))
    for slot in (-1, 10**15, 2**70):
        with pytest.raises(ConfigError, match="expected 0 to 10"):
            dataset[slot]


@pytest.mark.parametrize("slot", [1.5, "3", None])
def test_a_slot_is_a_whole_number(write_blend: WriteBlend, slot: object) -> None:
    dataset = train(write_blend(CORPORA, seq_length=8))
    with pytest.raises(TypeError):
        dataset[slot]  # pyright: ignore


def test_valid_and_test_are_built_on_first_use(
    write_blend: WriteBlend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each costs time and memory for every shard, and most processes read train alone."""
    built: list[str] = []
    build_split = build._build_split
    monkeypatch.setattr(
        build, "_build_split", lambda *args: (built.append(args[-1]), build_split(*args))[1]
    )
    datasets = build_datasets(write_blend(CORPORA, seq_length=8, split="80,10,10"))

    assert built == ["train"]
    assert datasets.valid is datasets.valid
    assert datasets.test is not None
    assert built == ["train", "valid", "test"]


def test_a_catalog_of_other_settings_is_refused(write_blend: WriteBlend) -> None:
    """Its cuts are those of another split."""
    catalog = read_catalog(write_blend(CORPORA, seq_length=8, split="90,10,0"))

    with pytest.raises(ConfigError, match=r"the catalog was made with split \(0\.9, 0\.1"):
        build_datasets(write_blend(CORPORA, seq_length=8), catalog)


def test_eod_mask_loss_leaves_out_labels_across_a_documents_end(
    write_shard: WriteShard, tmp_path: Path
) -> None:
    write_shard("web", [[10, 11, 2], [12, 2], [13, 14, 15]])
    (tmp_path / "list").write_text("1 web")
    dataset = train(
        BlendConfig(data_file_list=tmp_path / "list", seq_length=7, eod_token_id=2, split="1",
                    eod_mask_loss=True, append_eod=False)
    )  # fmt: skip

    assert dataset[0].input_ids.tolist() == [10, 11, 2, 12, 2, 13, 14]
    assert dataset[0].labels.tolist() == [11, 2, -100, 2, -100, 14, 15]


def test_hundreds_of_shards_work_under_a_small_limit_of_open_files(tmp_path: Path) -> None:
    """Run in a process of its own under ``ulimit -n 256``."""
    import subprocess
    import sys

    script = Path(__file__).with_name("many_shards.py")
    command = f'ulimit -n 256 && exec "{sys.executable}" "{script}" "{tmp_path}"'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["600", "shards", "read"]


# --- BOS and EOD are one token ----------------------------------------------------------------


def masked(dataset: BlendedDataset, slot: int) -> list[int]:
    """Labels of a sample; -100 where they are masked."""
    return dataset[slot].labels.tolist()


def begin_with_eod(write_shard: WriteShard, tmp_path: Path, **settings: Any) -> BlendedDataset:
    """Two documents that begin with EOD and do not end in it, read in one window."""
    write_shard("web", [[EOD, 10, 11], [EOD, 12, 13, 14]])
    (tmp_path / "list").write_text("1 web")
    return train(
        BlendConfig(data_file_list=tmp_path / "list", eod_token_id=EOD, split="1", **settings)
    )


def test_eod_is_inserted_after_documents_that_only_begin_with_it(
    write_shard: WriteShard, tmp_path: Path
) -> None:
    """Every document is followed by EOD: the one that begins the next is part of that one."""
    dataset = begin_with_eod(write_shard, tmp_path, seq_length=8, eod_mask_loss=True)

    assert dataset[0].input_ids.tolist() == [EOD, 10, 11, EOD, EOD, 12, 13, 14]
    assert masked(dataset, 0) == [10, 11, EOD, -100, 12, 13, 14, EOD]


def test_without_insertion_the_eod_that_begins_a_document_is_masked(
    write_shard: WriteShard, tmp_path: Path
) -> None:
    dataset = begin_with_eod(
        write_shard, tmp_path, seq_length=6, eod_mask_loss=True, append_eod=False
    )

    assert dataset[0].input_ids.tolist() == [EOD, 10, 11, EOD, 12, 13]
    assert masked(dataset, 0) == [10, 11, -100, 12, 13, 14]


def test_a_corpus_whose_documents_begin_with_eod_leaves_others_as_they_are(
    write_shard: WriteShard, tmp_path: Path
) -> None:
    """EOD alone is a document here, and no beginning, because other documents lack it."""
    write_shard("bos", [[EOD, 10, EOD], [EOD, 11, EOD], [EOD, 12, EOD]])
    write_shard("web", [[EOD], [20, 21, EOD], [EOD], [22, EOD]])
    (tmp_path / "list").write_text("1 bos\n1 web")
    dataset = train(
        BlendConfig(data_file_list=tmp_path / "list", seq_length=6, eod_token_id=EOD, split="1",
                    eod_mask_loss=True, shuffle_sample_in_corpus=False)
    )  # fmt: skip
    labels = {dataset[slot].corpus: masked(dataset, slot) for slot in range(2)}

    assert labels["bos"] == [10, EOD, -100, 11, EOD, -100]
    assert labels["web"] == [-100, 21, EOD, -100, -100, EOD]
