"""Staging of a run: the processes of a node, the thread that fetches, and the report."""

import atexit
import threading
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from blendtitan.dataset.blended import BlendedDataset
from blendtitan.errors import ConfigError
from blendtitan.staging.blocks import BLOCK_BYTES, Blocks
from blendtitan.staging.files import Counts, Stage
from blendtitan.staging.folder import StageFolder, delete_abandoned, note_of
from blendtitan.staging.planner import check_room
from blendtitan.staging.stager import Stager
from blendtitan.visible import visible_logger

if TYPE_CHECKING:
    from blendtitan.loader import DataLoader

logger = visible_logger(__name__)

_NOTE_SECONDS = 0.5
_REPORT_SECONDS = 600.0


class Neighbour(NamedTuple):
    """A process of a node."""

    folder: str
    """Its folder."""
    dp_rank: int
    """Its data-parallel rank."""


def stage(
    loader: "DataLoader",
    path: str | Path,
    num_bytes: int,
    *,
    num_samples: int,
    block_bytes: int = BLOCK_BYTES,
) -> "Staging":
    """Stage what a loader reads from its position on, for a node with one process.

    Args:
        loader: The loader of the training split, at its start or after it loaded a state.
        path: Folder on a disk of this node. It is made if its parent exists.
        num_bytes: Bytes of the disk that may be used.
        num_samples: Samples that the whole run reads, of all ranks together.
        block_bytes: Bytes of a block.

    Raises:
        ConfigError: The loader's order cannot be staged, or too few bytes are given.
        OutputError: The folder cannot be used.
    """
    _checked(loader, num_bytes, processes=1, block_bytes=block_bytes)
    folder = StageFolder.claim(Path(path), process=0)
    own = Neighbour(str(folder.path), loader.course.dp_rank)
    return begin(
        *(loader, folder, [own]),
        num_bytes=num_bytes,
        num_samples=num_samples,
        block_bytes=block_bytes,
    )


def begin(
    loader: "DataLoader",
    folder: StageFolder,
    neighbours: Sequence[Neighbour],
    *,
    num_bytes: int,
    num_samples: int,
    reports: bool = True,
    block_bytes: int = BLOCK_BYTES,
) -> "Staging":
    """Stage what the processes of a node read. Each of them calls this.

    Args:
        loader: As for ``stage``.
        folder: The folder of this process.
        neighbours: All processes of the node, this one included, in the same order on each.
        num_bytes: Bytes of the disk that they may use together.
        num_samples: As for ``stage``.
        reports: Whether the first of them logs what was fetched.
        block_bytes: Bytes of a block.

    Raises:
        ConfigError: The loader's order cannot be staged, or too few bytes are given.
    """
    dataset = _checked(loader, num_bytes, processes=len(neighbours), block_bytes=block_bytes)
    paths = [Path(each.folder) for each in neighbours]
    index = paths.index(folder.path)
    if index == 0:
        delete_abandoned(folder.path.parent, paths)
    blocks = Blocks.of_catalog(dataset.catalog, block_bytes=block_bytes)
    stage = Stage(paths, block_bytes)
    stager = Stager(
        loader=loader,
        stage=stage,
        folder=folder,
        index=index,
        dp_ranks=tuple(each.dp_rank for each in neighbours),
        num_samples=num_samples,
        num_bytes=num_bytes // len(neighbours),
        blocks=blocks,
    )
    dataset.rows.files.reopen(stage.open)
    return Staging(stager, reports=reports and index == 0)


def _checked(
    loader: "DataLoader", num_bytes: int, *, processes: int, block_bytes: int
) -> BlendedDataset:
    dataset = loader.dataset
    if not isinstance(dataset, BlendedDataset):
        raise ConfigError(
            f'data_stage_path needs order = "blendtitan", found order = "{dataset.config.order}". '
            f"Leave data_stage_path out."
        )
    check_room(num_bytes, processes=processes, block_bytes=block_bytes, key="data_stage_bytes")
    return dataset


@dataclass
class Staging:
    """A run that stages, from when it is made to the run's last sample, or until ``close``."""

    stager: Stager
    reports: bool
    _notes: dict[Path, str] = field(default_factory=dict)
    """What each process of the node has noted last."""
    _is_ended: bool = False
    _lock: threading.RLock = field(default_factory=threading.RLock)
    """No thread notes in the folder while another one releases it."""

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, name="stage", daemon=True)
        self._thread.start()
        threading.Thread(target=self._report, name="stage-report", daemon=True).start()
        atexit.register(self.close)

    @property
    def counts(self) -> Counts:
        """The bytes of all processes of the node, as they noted them last."""
        with self._lock:
            self._note()
            columns = zip(*(map(int, note.split()) for note in self._notes.values()), strict=True)
            return Counts(*map(sum, columns))

    def _note(self) -> None:
        own = self.stager.stage.counts
        own.on_disk = self.stager.planner.staged_bytes + self.stager.windows.num_bytes
        folder, text = self.stager.folder, " ".join(map(str, astuple(own)))
        folder.note(text)
        for path in self.stager.stage.folders:
            if note := text if path == folder.path else note_of(path):
                self._notes[path] = note  # empty if that process has ended

    def close(self) -> None:
        """Stop. Blocks are deleted if the run has ended, else kept for its next start."""
        atexit.unregister(self.close)
        self.stager.ended.set()
        self._thread.join()
        self._end()

    def _run(self) -> None:
        self.stager.run()
        if self.stager.is_done:
            self._end()

    def _end(self) -> None:
        with self._lock:
            if self._is_ended:
                return
            self._is_ended = True
            counts = self.counts
            if self.reports:
                logger.info("%s", counts)
            if self.stager.is_done:
                self.stager.folder.delete()
            self.stager.folder.release()

    def _report(self) -> None:
        reported = time.monotonic()
        while not self.stager.ended.wait(_NOTE_SECONDS):
            counts = self.counts
            if not self.stager.folder.path.exists() and not self.stager.is_done:
                self.stager.stage.warn(f"{self.stager.folder.path}: is gone, so staging ends")
                self.stager.ended.set()
            if self.reports and time.monotonic() > reported + _REPORT_SECONDS:
                reported = time.monotonic()
                logger.info("%s", counts)
