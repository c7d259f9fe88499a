"""The reads to come, found by arithmetic, are those that the loaders of a node make."""

from dataclasses import replace

import numpy as np
import pytest

from blendtitan import BlendConfig, BlendedDataset, DataLoader, build_datasets
from blendtitan.balance import balance_steps
from blendtitan.order.slots import Course
from blendtitan.staging.blocks import Blocks, NodeReads
from tests.conftest import WriteBlend

BLOCK_BYTES = 256
RANKS = (2, 3, 3)
"""The data-parallel ranks of a node's processes: two of them are peers of tensor parallelism."""
START, STOP = 16, 160


@pytest.fixture
def blend(write_blend: WriteBlend) -> BlendConfig:
    return write_blend({"web": (0.7, [900, 500]), "code": (0.3, [700])}, seq_length=16)


def train(config: BlendConfig) -> BlendedDataset:
    dataset = build_datasets(config).train
    assert isinstance(dataset, BlendedDataset)
    return dataset


def node_reads(
    dataset: BlendedDataset, course: Course, *, owner: int = 0, num_owners: int = 1
) -> NodeReads:
    blocks = Blocks.of_catalog(dataset.catalog, block_bytes=BLOCK_BYTES)
    return NodeReads(dataset, course, RANKS, START, STOP, blocks, owner, num_owners)


def bytes_of(node_reads: NodeReads) -> np.ndarray:
    """Bytes of each block that are read."""
    found = np.zeros(node_reads.blocks.firsts[-1], np.int64)
    for reads in node_reads:
        np.add.at(found, reads.blocks, reads.num_bytes)
    return found


def loaders_bytes(dataset: BlendedDataset, course: Course) -> np.ndarray:
    """The same, from the slots that each loader reads, byte by byte."""
    blocks = Blocks.of_catalog(dataset.catalog, block_bytes=BLOCK_BYTES)
    found = np.zeros(blocks.firsts[-1], np.int64)
    for rank in RANKS:
        own, at = replace(course, dp_rank=rank), START
        while at < STOP:
            block, index = own.block(at)
            plan = dataset.plan(own.slots(block)[index])
            for shard, byte in zip(plan.shards.tolist(), plan.at_bytes.tolist(), strict=True):
                for each in range(byte, byte + 2 * 17) if byte >= 0 else ():
                    found[blocks.firsts[shard] + each // BLOCK_BYTES] += 1
            at = own.after(at)
    return found


@pytest.mark.parametrize("blended", [True, False])
def test_the_reads_of_a_node(blend: BlendConfig, blended: bool) -> None:
    dataset, course = train(replace(blend, blend_sample_in_corpus=blended)), Course(2, 0, 4)

    np.testing.assert_array_equal(
        bytes_of(node_reads(dataset, course)), loaders_bytes(dataset, course)
    )


def test_the_reads_of_a_run_that_skips_and_balances(blend: BlendConfig) -> None:
    dataset = train(replace(blend, provide_attention_mask=True))
    loader = DataLoader(dataset, 2, dp_world_size=4, num_workers=0)
    loader.set_skips([(40, 56)])
    loader.begin_at(START)
    balance_steps(loader, batches_per_step=2)
    assert isinstance(loader.dataset, BlendedDataset)

    np.testing.assert_array_equal(
        bytes_of(node_reads(loader.dataset, loader.course)),
        loaders_bytes(loader.dataset, loader.course),
    )


def test_each_block_has_one_owner(blend: BlendConfig) -> None:
    dataset, course = train(blend), Course(2, 0, 4)
    parts = [bytes_of(node_reads(dataset, course, owner=i, num_owners=3)) for i in range(3)]

    np.testing.assert_array_equal(sum(parts), bytes_of(node_reads(dataset, course)))
    assert (np.count_nonzero(parts, axis=0) <= 1).all()


def test_the_blocks_of_shards_cover_their_bytes(blend: BlendConfig) -> None:
    blocks = Blocks.of_catalog(train(blend).catalog, block_bytes=BLOCK_BYTES)

    assert blocks.sizes.max() == BLOCK_BYTES
    assert [blocks.place(block) for block in (0, blocks.firsts[1] - 1, blocks.firsts[1])] == [
        (0, 0),
        (0, blocks.firsts[1] - 1),
        (1, 0),
    ]
    for shard in range(3):
        own = blocks.sizes[blocks.firsts[shard] : blocks.firsts[shard + 1]]
        assert own.sum() == blocks.file_bytes[shard]
