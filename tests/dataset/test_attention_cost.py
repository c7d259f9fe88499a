"""The cost of a row is the sum of the squares of its documents' lengths, as masks see them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from blendtitan import BlendConfig, BlendedDataset, DataLoader, build_datasets
from blendtitan.dataset.attention_cost import DocumentLens, attention_costs
from blendtitan.errors import CorruptShardError
from tests.conftest import EOD, WriteBlend, WriteShard

CORPORA = {"code": (0.5, [300, 41, 9]), "web": (0.5, [500, 333])}


def costs_and_masks(config: BlendConfig, num_rows: int) -> tuple[list[int], list[int]]:
    """The costs of the first rows, and the same from the positions that the loader gives."""
    loader = DataLoader(build_datasets(config).train, num_rows, positions=True, num_workers=0)
    return next_costs_and_masks(loader, num_rows)


def next_costs_and_masks(loader: DataLoader, num_rows: int) -> tuple[list[int], list[int]]:
    """The same for the next rows of a loader."""
    dataset, slots = loader.dataset, loader.consumed_samples + np.arange(num_rows)
    assert isinstance(dataset, BlendedDataset)
    costs = attention_costs(dataset, slots, DocumentLens.read(dataset.rows))
    rows = next(iter(loader)).positions
    assert rows is not None
    lens_of_rows = [np.diff(np.append(np.flatnonzero(row == 0), len(row))) for row in rows.numpy()]
    return costs.tolist(), [int((row**2).sum()) for row in lens_of_rows]


@pytest.mark.parametrize("blended", [True, False], ids=["per shard", "all shards in a row"])
@pytest.mark.parametrize("seq_length", [1, 7, 64])
def test_costs_are_those_of_the_masks(
    write_blend: WriteBlend, seq_length: int, blended: bool
) -> None:
    """Over several epochs, with windows that cross shards or wrap around."""
    config = write_blend(
        CORPORA,
        seq_length=seq_length,
        provide_attention_mask=True,
        blend_sample_in_corpus=blended,
        split="90,10,0",
    )
    costs, expected = costs_and_masks(config, 3000 // seq_length)

    assert costs == expected


@pytest.mark.parametrize("blended", [True, False], ids=["per shard", "all shards in a row"])
def test_the_parts_that_a_window_of_a_remainder_joins_count_separately(
    write_blend: WriteBlend, blended: bool
) -> None:
    """The masks do not tell apart documents that such a window cuts on both sides of a join."""
    config = write_blend(
        CORPORA, seq_length=7, provide_attention_mask=True, blend_sample_in_corpus=blended
    )
    before = DataLoader(build_datasets(config).train, 20, num_workers=0)
    next(iter(before))
    changed = replace(config, seq_length=30, on_change="new_segment")
    after = DataLoader(build_datasets(changed).train, 30, positions=True, num_workers=0)
    after.load_state_dict(before.state_dict())
    costs, expected = next_costs_and_masks(after, 30)

    assert isinstance(after.dataset, BlendedDataset)
    places = after.dataset.order.places(np.arange(20, 50))
    is_whole = [len(after.dataset.order.stretches(places, i)) == 1 for i in range(30)]

    assert 0 < sum(is_whole) < 30
    assert np.greater_equal(expected, costs).all()
    assert np.equal(expected, costs)[is_whole].all()


def test_inserted_eods_count(tmp_path: Path, write_shard: WriteShard) -> None:
    """Also those of empty documents, and in a document of more than 65,535 tokens."""
    documents = [[5] * 9, [], [6] * 70_000, [7] * 3] * 2
    path = tmp_path / "list.txt"
    path.write_text(str(write_shard("web", documents)))
    config = BlendConfig(
        data_file_list=path, seq_length=50, eod_token_id=EOD, provide_attention_mask=True, split="1"
    )
    costs, expected = costs_and_masks(config, 2800)

    assert costs == expected


def test_an_idx_that_was_replaced_is_an_error(write_blend: WriteBlend, tmp_path: Path) -> None:
    config = write_blend({"web": (1.0, [300])}, seq_length=8, split="50,50,0")
    dataset = build_datasets(config).train
    assert isinstance(dataset, BlendedDataset)
    index = next(tmp_path.rglob("*.idx"))
    data = bytearray(index.read_bytes())
    num_sequences = int.from_bytes(data[18:26], "little")
    pointers = np.frombuffer(data, "<i8", count=num_sequences, offset=34 + 4 * num_sequences)
    pointers[num_sequences // 2 - 1 :] = pointers[-1]
    index.write_bytes(data)

    with pytest.raises(CorruptShardError, match=r"web_0\.idx"):
        DocumentLens.read(dataset.rows)
