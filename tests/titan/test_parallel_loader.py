"""Which rank reads which samples, on every kind of mesh: TorchTitan's meshes, and the loader alone.

The meshes are real, of processes that are not: one process is each of the ranks in turn.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore
from torchtitan.distributed import ParallelDims

from tests.small_corpora import write_corpora
from tests.titan.test_dataloader import Config, build, dataset_of

GLOBAL_BATCH_SIZE = 32
FIRST_STEP = 5

Row = tuple[int, ...]
Place = tuple[int, int]
"""Data-parallel rank and number of them."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A mesh, and how many samples pass through its model at once."""

    mesh: dict[str, int]
    local_batch_size: int = 2
    pipeline_microbatch_size: int | None = None
    """Samples that the loader gives a pipeline at once."""

    def __str__(self) -> str:
        sizes = self.mesh | {"local": self.local_batch_size}
        return " ".join(f"{name}={size}" for name, size in sizes.items())

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        size = 1
        for degree in self.mesh.values():
            size *= degree
        return size

    @property
    def dp_world_size(self) -> int:
        """Places among the data-parallel ranks."""
        return self.mesh.get("dp_replicate", 1) * self.mesh.get("dp_shard", 1)


LAYOUTS = [
    Layout(mesh={"dp_replicate": 4}),
    Layout(mesh={"dp_shard": 4}),
    Layout(mesh={"dp_replicate": 2, "dp_shard": 2}, local_batch_size=8),
    Layout(mesh={"tp": 4}, local_batch_size=32),
    Layout(mesh={"cp": 4}),
    Layout(mesh={"pp": 4}, local_batch_size=8, pipeline_microbatch_size=1),
    Layout(mesh={"dp_shard": 2, "cp": 2}),
    Layout(mesh={"dp_replicate": 2, "cp": 2}),
    Layout(mesh={"tp": 2, "cp": 2}),
    Layout(mesh={"pp": 2, "cp": 2}, local_batch_size=4, pipeline_microbatch_size=2),
    Layout(mesh={"pp": 2, "dp_shard": 2}, local_batch_size=4, pipeline_microbatch_size=2),
    Layout(mesh={"pp": 2, "tp": 2}, local_batch_size=32, pipeline_microbatch_size=4),
    Layout(
        mesh={"pp": 2, "dp_replicate": 2, "dp_shard": 2, "cp": 2, "tp": 2},
        local_batch_size=4,
        pipeline_microbatch_size=1,
    ),
]
EVERY_LAYOUT = pytest.mark.parametrize("layout", LAYOUTS, ids=str)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(data_file_list=str(write_corpora(tmp_path)), split="90,10,0", num_workers=0)


def places(layout: Layout) -> list[Place]:
    """The place of each rank, as TorchTitan's trainer gives it to the loader."""
    return [_place(layout, rank) for rank in range(layout.world_size)]


def _place(layout: Layout, rank: int) -> Place:
    degrees = dict.fromkeys(("dp_replicate", "dp_shard", "cp", "tp", "pp", "ep"), 1) | layout.mesh
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=layout.world_size)
    try:
        dims = ParallelDims(**degrees, world_size=layout.world_size, spmd_backend="partial_dtensor")
        if not dims.dp_enabled:
            return 0, 1
        mesh = dims.get_mesh("batch")
        return mesh.get_local_rank(), mesh.size()
    finally:
        dist.destroy_process_group()


def read(config: Config, layout: Layout, place: Place, num_steps: int = 1) -> list[list[Row]]:
    """Rows of each of a rank's micro batches of the model, from ``FIRST_STEP`` on."""
    dp_rank, dp_world_size = place
    at_once = layout.pipeline_microbatch_size or layout.local_batch_size
    loader = build(config, dp_rank=dp_rank, dp_world_size=dp_world_size, local_batch_size=at_once)
    loader.set_consumed_by_global_step(FIRST_STEP, GLOBAL_BATCH_SIZE)
    loader.align(FIRST_STEP, global_batch_size=GLOBAL_BATCH_SIZE)
    batches = iter(loader)
    rows: list[list[Row]] = []
    for _ in range(num_steps):
        num_samples = GLOBAL_BATCH_SIZE // dp_world_size
        step = [next(batches)[1].tolist() for _ in range(num_samples // at_once)]
        rows.append([tuple(row) for batch in step for row in batch])
    assert loader.consumed_samples == (FIRST_STEP + num_steps) * GLOBAL_BATCH_SIZE
    return rows


@EVERY_LAYOUT
def test_ranks_that_differ_only_in_tp_pp_or_cp_share_a_place(layout: Layout) -> None:
    """So they read the same samples. There is a place for each data-parallel replica."""
    ranks_at: dict[Place, list[int]] = defaultdict(list)
    for rank, place in enumerate(places(layout)):
        ranks_at[place].append(rank)
    peers = layout.world_size // layout.dp_world_size

    assert ranks_at.keys() == {(r, layout.dp_world_size) for r in range(layout.dp_world_size)}
    assert all(len(ranks) == peers for ranks in ranks_at.values())


@EVERY_LAYOUT
def test_every_step_is_the_same_set_of_samples_on_every_mesh(
    config: Config, layout: Layout
) -> None:
    """Disjoint between data-parallel ranks, and together the slots that one process would read.

    Gradients accumulated and pipelines' micro batches included.
    """
    of_places = {place: read(config, layout, place, num_steps=2) for place in set(places(layout))}
    dataset = dataset_of(config)
    for step in range(2):
        start = (FIRST_STEP + step) * GLOBAL_BATCH_SIZE
        expected = [
            tuple(dataset[slot].labels.tolist()) for slot in range(start, start + GLOBAL_BATCH_SIZE)
        ]

        assert sorted(row for steps in of_places.values() for row in steps[step]) == sorted(
            expected
        )


@EVERY_LAYOUT
def test_a_state_saved_on_one_mesh_resumes_on_any_other(config: Config, layout: Layout) -> None:
    """It is the same text on every rank of every mesh, so any of them may be the one stored."""
    states = set()
    for dp_rank, dp_world_size in set(places(layout)):
        loader = build(config, dp_rank=dp_rank, dp_world_size=dp_world_size, local_batch_size=1)
        loader.align(0, global_batch_size=GLOBAL_BATCH_SIZE)
        batches = iter(loader)
        for _ in range(GLOBAL_BATCH_SIZE // dp_world_size):
            next(batches)
        states.add(loader.state_dict()["blendtitan"])
    whole = build(config, local_batch_size=GLOBAL_BATCH_SIZE)
    whole.align(0, global_batch_size=GLOBAL_BATCH_SIZE)
    next(iter(whole))

    assert states == {whole.state_dict()["blendtitan"]}
