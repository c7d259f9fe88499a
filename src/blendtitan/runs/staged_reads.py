"""The bytes that a node fetches, which stages blocks of shards on its disk."""

from dataclasses import dataclass

from blendtitan.dataset.blended import BlendedDataset
from blendtitan.dataset.interface import Dataset
from blendtitan.errors import ConfigError
from blendtitan.history.skips import skips_of
from blendtitan.order.slots import Course
from blendtitan.runs.open import RunConfig
from blendtitan.runs.row_reads import size_of
from blendtitan.staging.blocks import BLOCK_BYTES, Blocks, NodeReads
from blendtitan.staging.planner import MOST_AHEAD, Planner, check_room, predicted, shares
from blendtitan.visible import counted


@dataclass(frozen=True, kw_only=True, slots=True)
class StagedReads:
    """What the first node of a run is predicted to fetch."""

    nodes: int
    ranks: int
    """Data-parallel ranks of the node."""
    samples: int
    """Samples of the run that were looked at, of all nodes: all of them, or the first."""
    bytes_read: int
    """Of the node's windows."""
    bytes_blocks: int
    """Fetched as blocks."""
    bytes_windows: int
    """Fetched as windows."""
    bytes_on_disk: int
    """At most at once."""

    @property
    def bytes_fetched(self) -> int:
        """Of blocks and windows."""
        return self.bytes_blocks + self.bytes_windows

    def sentence(self) -> str:
        """The prediction as a sentence."""
        node = "the node" if self.nodes == 1 else f"each of {self.nodes:,} nodes"
        return (
            f"Staging: {node} with {counted(self.ranks, 'rank')} "
            f"fetches {size_of(self.bytes_fetched)} for {size_of(self.bytes_read)} read "
            f"({self.bytes_fetched / max(1, self.bytes_read):.2f} bytes per byte) in "
            f"{self.samples:,} samples: {size_of(self.bytes_blocks)} as blocks, of which its disk "
            f"holds at most {size_of(self.bytes_on_disk)}, and {size_of(self.bytes_windows)} as "
            f"windows."
        )


def predicted_reads(run: RunConfig, train: Dataset, *, ranks: int, nodes: int) -> StagedReads:
    """Predict what a node fetches, if every block arrives before its first read.

    Raises:
        ConfigError: The run does not stage, or its ranks cannot be divided among the nodes.
    """
    if run.stage_bytes is None or not isinstance(train, BlendedDataset):
        raise ConfigError(
            f"{run.path}: blendcorpus.data_stage_path is not set, expected it for --nodes, which "
            f"predicts what a node fetches for its disk"
        )
    if nodes < 1 or ranks % nodes:
        raise ConfigError(f"--nodes is {nodes}, expected a divisor of {ranks}, the number of ranks")
    own = ranks // nodes
    key = f"{run.path}: blendcorpus.data_stage_bytes"
    check_room(run.stage_bytes, processes=own, block_bytes=BLOCK_BYTES, key=key)
    course = Course(run.micro_batch, 0, ranks)
    if run.skipped:
        course = skips_of(run.skipped).course(course)
    stop = min(run.stop_slot, MOST_AHEAD * nodes)
    blocks = Blocks.of_catalog(train.catalog)
    found = predicted(
        Planner(blocks.sizes, shares(run.stage_bytes)[0]),
        NodeReads(train, course, range(own), train.first_slot, stop, blocks),
    )
    return StagedReads(
        nodes=nodes,
        ranks=own,
        samples=train.samples_before(stop),
        bytes_read=found.read_bytes,
        bytes_blocks=found.staged_bytes,
        bytes_windows=found.window_bytes,
        bytes_on_disk=found.most_on_disk,
    )
