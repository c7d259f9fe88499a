"""Samples without removed documents, against a corpus whose tokens are numbers of documents."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blendtitan import BlendConfig, DataLoader, build_datasets
from blendtitan.dataset.blended import BlendedDataset
from blendtitan.dataset.documents import IGNORE_INDEX
from blendtitan.storage.writer import ShardWriter
from tests.conftest import EOD

SHARDS = ("web/0", "web/1", "code/0")

Documents = dict[str, list[int]]
"""Lengths of the documents of each shard, EOD included."""

LENS = st.integers(1, 9)
documents = st.fixed_dictionaries(
    {name: st.lists(LENS, min_size=12, max_size=40).map(lambda lens: [5, *lens]) for name in SHARDS}
)


class Blends:
    """A blend, and its twin, in which each token is the number of its document."""

    def __init__(self, folder: Path, lens: Documents, *, has_eod: bool, **settings: Any) -> None:
        self.folder, self.numbers = folder, {}
        number = 3
        for shard, of_shard in lens.items():
            for kind in ("plain", "twin"):
                (folder / kind / shard).parent.mkdir(parents=True, exist_ok=True)
            plain = ShardWriter.create(folder / "plain" / shard, dtype=np.dtype("<u2"))
            twin = ShardWriter.create(folder / "twin" / shard, dtype=np.dtype("<i4"))
            with plain, twin:
                for document, size in enumerate(of_shard):
                    text = np.arange(3, 2 + size)
                    plain.add_document(np.append(text, EOD) if has_eod else text)
                    twin.add_document(np.full(size, number))
                    self.numbers[shard, document] = number
                    number += 1
        lines = [f"{1 / len(shard)} {{}}/{shard} {shard[:-2]}" for shard in lens]
        for kind in ("plain", "twin"):
            text = "\n".join(lines).format(*[folder / kind] * len(lens))
            (folder / f"{kind}.txt").write_text(text)
        self.config = BlendConfig(
            data_file_list=folder / "plain.txt", eod_token_id=EOD, seed=7, **settings
        )
        self.twin = dataclasses.replace(
            self.config,
            data_file_list=folder / "twin.txt",
            append_eod=False,
            provide_attention_mask=False,
        )

    def removing(self, removed: list[tuple[str, int]]) -> BlendConfig:
        """The configuration with a list of removed documents."""
        path = self.folder / "removed.txt"
        path.write_text("".join(f"{shard} {document}\n" for shard, document in removed))
        return dataclasses.replace(self.config, removed_documents=path)


@settings(max_examples=20)
@given(
    lens=documents,
    data=st.data(),
    has_eod=st.booleans(),
    blended=st.booleans(),
    seq_len=st.integers(1, 30),
)
def test_removed_documents_are_read_as_eod_and_nothing_else_changes(
    lens: Documents, data: st.DataObject, has_eod: bool, blended: bool, seq_len: int
) -> None:
    """Over several epochs, in all splits, with windows that wrap around and inserted EODs."""
    every = [(shard, i) for shard in lens for i in range(len(lens[shard]))]
    removed = data.draw(st.lists(st.sampled_from(every), max_size=20))
    with tempfile.TemporaryDirectory() as folder:
        blends = Blends(
            Path(folder),
            lens,
            has_eod=has_eod,
            seq_length=seq_len,
            split="80,20,0",
            blend_sample_in_corpus=blended,
        )
        numbers = [blends.numbers[each] for each in removed]
        sets = [build_datasets(each) for each in (blends.config, blends.twin)]
        without = build_datasets(blends.removing(removed))
        for split in ("train", "valid"):
            plain, twin, now = (getattr(each, split) for each in (*sets, without))
            for dataset in (lambda d: d, lambda d: d.once(), lambda d: d.only("web")):
                check(*map(dataset, (plain, twin, now)), numbers)


def check(
    plain: BlendedDataset, twin: BlendedDataset, now: BlendedDataset, numbers: list[int]
) -> None:
    slots = np.arange(40) % plain.num_windows
    tokens, owners, found = (
        dataset.read(dataset.plan(slots), 0, len(slots)) for dataset in (plain, twin, now)
    )
    is_removed = np.isin(owners, numbers)

    assert (found == np.where(is_removed, EOD, tokens)).all()
    for slot in slots[:10].tolist():
        sample = now[slot]
        masked = is_removed[slot, 1:] | is_removed[slot, :-1]
        assert (sample.labels == np.where(masked, IGNORE_INDEX, tokens[slot, 1:].astype(int))).all()
        assert (sample.input_ids == found[slot, :-1]).all()


@pytest.fixture
def blends(tmp_path: Path) -> Blends:
    lens = {"web/0": [4, 6, 5, 1, 8], "code/0": [3] * 9}
    settings = {"seq_length": 7, "split": "1", "provide_attention_mask": True}
    return Blends(tmp_path, lens, has_eod=True, **settings)


def test_no_token_attends_to_a_removed_document(blends: Blends) -> None:
    """Each of its tokens is a document of its own, whatever surrounds it."""
    train, twin = (
        build_datasets(config).train for config in (blends.removing(REMOVED), blends.twin)
    )
    assert twin is not None
    stream = iter(DataLoader(train, 2, num_workers=0))
    numbers = [blends.numbers[each] for each in REMOVED]
    seen = 0
    for at in range(0, 40, 2):
        batch = next(stream)
        assert batch.attention_mask is not None
        assert batch.positions is not None
        for row in range(2):
            owners = twin[at + row].input_ids
            is_removed = np.isin(owners, numbers)
            mask = batch.attention_mask[row, 0].numpy()
            seen += is_removed.sum()
            same = owners[:, None] == owners[None]
            expected = np.tril(np.where(is_removed[:, None] | is_removed, np.eye(7), same))

            assert (mask == expected).all()
            assert (batch.positions[row].numpy()[is_removed] == 0).all()
    assert seen > 20


REMOVED = [("web/0", 1), ("code/0", 0), ("code/0", 1), ("code/0", 8)]


def test_labels_end_with_the_eod_before_a_removed_document(blends: Blends) -> None:
    """With and without ``eod_mask_loss``, the first token after it is not predicted either."""
    config = dataclasses.replace(
        blends.removing([("web/0", 1)]), seq_length=14, shuffle_sample_in_corpus=False
    )
    for eod_mask_loss in (False, True):
        masked = dataclasses.replace(config, eod_mask_loss=eod_mask_loss)
        train = build_datasets(masked).train
        assert train is not None
        sample = train.only("web")[0]

        assert sample.input_ids.tolist() == [3, 4, 5, EOD, *[EOD] * 6, 3, 4, 5, 6]
        assert sample.labels.tolist() == [4, 5, EOD, *[IGNORE_INDEX] * 7, 4, 5, 6, EOD]


def test_a_token_outside_the_vocabulary_is_no_error_in_a_removed_document(blends: Blends) -> None:
    config = dataclasses.replace(blends.removing([("web/0", 4)]), vocab_size=8)
    train = build_datasets(config).train
    assert train is not None
    web = train.only("web")

    assert max(web[slot].input_ids.max() for slot in range(12)) == 7
