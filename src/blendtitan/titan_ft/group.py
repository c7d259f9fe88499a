"""This replica among the replicas of a job, through torchft's ``Manager``.

Private names of torchft are not used. ``tests/titan_ft`` checks what is relied on.
"""

import socket
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from blendtitan.errors import ConfigError, requires_extra
from blendtitan.settings.replicas import LIGHTHOUSE, check_lighthouse
from blendtitan.titan.shared_catalog import from_first_rank
from blendtitan.titan_ft.settings import FaultToleranceSettings
from blendtitan.visible import drop_logs, visible_logger

with requires_extra("torchft", "fault_tolerance.enable = true"):
    import torchft

logger = visible_logger(__name__)

State = dict[str, Any]

_BUCKET_BYTES = 64 * 2**20
"""Bytes of gradients in one exchange."""

_QUORUM = timedelta(minutes=10)
"""Longest wait for the other replicas. They may validate, or save a checkpoint."""

_FAREWELL = timedelta(seconds=15)
_CONNECT = timedelta(seconds=10)


class Place(NamedTuple):
    """The place of this replica among those that take part in a step."""

    replica: int
    num_replicas: int


class ReplicaGroup:
    """The replicas of a job, as one rank of one of them sees them."""

    def __init__(
        self,
        settings: FaultToleranceSettings,
        *,
        save: Callable[[], State],
        load: Callable[[State], None],
    ) -> None:
        """Connect to the lighthouse.

        Args:
            settings: The settings of this replica.
            save: Returns the state of this rank, for a replica that joins.
            load: Loads the state of the same rank of another replica.

        Raises:
            ConfigError: There is no lighthouse.
        """
        address = check_lighthouse()
        # Several lines per step, and a traceback for each replica that fails.
        drop_logs(r"$|\[replica_\d+:|Started CheckpointServer|fetching checkpoint|transferring")
        warnings.filterwarnings("ignore", "The given buffer is not writable")
        self._lighthouse = address
        self._forgets = False
        self._server: TCPStore | None = None
        self._timeout = timedelta(milliseconds=settings.process_group_timeout_ms)
        kinds = {"gloo": torchft.ProcessGroupGloo, "nccl": torchft.ProcessGroupNCCL}
        host, port = self._store()
        try:
            self._manager = torchft.Manager(
                pg=kinds[settings.process_group](timeout=self._timeout),
                load_state_dict=load,
                state_dict=save,
                min_replica_size=settings.min_replica_size,
                use_async_quorum=False,
                quorum_timeout=_QUORUM,
                connect_timeout=_CONNECT,
                rank=dist.get_rank(),
                world_size=dist.get_world_size(),
                store_addr=host,
                store_port=port,
                lighthouse_addr=address,
                replica_id=f"replica_{settings.replica_id}",
            )
        except (RuntimeError, TimeoutError) as error:
            raise ConfigError(
                f"{LIGHTHOUSE} is {address}, but no lighthouse answers there: {error}. Start it, "
                f"or correct the address."
            ) from error

    def _store(self) -> tuple[str, int]:
        """Where the ranks of this replica, and the other replicas, find its key-value store."""

        def serve() -> bytes:
            self._server = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
            return f"{socket.gethostname()} {self._server.port}".encode()

        host, port = from_first_rank(serve).decode().split()
        return host, int(port)

    @property
    def committed_steps(self) -> int:
        """Steps that are committed, as far as this replica knows."""
        return self._manager.current_step()

    def begin(self, committed_steps: int) -> Place:
        """Agree on who takes part in the next step. The state of another replica may be loaded.

        Raises:
            ConfigError: There is no lighthouse any more, or too few replicas came.
        """
        if self._forgets or committed_steps != self.committed_steps:
            self._count_from(0 if self._forgets else committed_steps)
            self._forgets = False
        try:
            self._manager.start_quorum()
        except (RuntimeError, TimeoutError) as error:
            raise ConfigError(
                f"the replicas did not agree on who takes part in step {committed_steps + 1:,}: "
                f"{error}. Check the lighthouse at {self._lighthouse}, and that enough replicas "
                f"run, and start this one again."
            ) from error
        place = self._manager.participating_rank()
        assert place is not None  # only asynchronous quorums have spares
        return Place(place, self._manager.num_participants())

    def forget(self) -> None:
        """Load the state of another replica at the next step."""
        self._forgets = True  # torchft then sees a replica that has made no step

    def has_failed(self) -> bool:
        """Whether this step cannot be committed."""
        return self._manager.errored() is not None

    def fail(self, reason: str) -> None:
        """Do not commit this step."""
        self._manager.report_error(RuntimeError(reason))

    def sum(self, tensors: Iterable[torch.Tensor]) -> None:
        """Sum tensors over the replicas that take part, in place.

        An error is kept until ``commit``; the tensors are then worthless.
        """
        running: list[tuple[Any, torch.Tensor, list[torch.Tensor]]] = []
        for bucket in _buckets(tensors):
            flat = _flatten_dense_tensors(bucket)
            work = self._manager.allreduce(flat, reduce_op=dist.ReduceOp.SUM)
            running.append((work, flat, bucket))
            if len(running) > 1:  # one is exchanged while the next is prepared
                _finish(*running.pop(0))
        for each in running:
            _finish(*each)

    def commit(self, step: int) -> bool:
        """Whether the steps up to ``step`` count: nothing failed on any rank of this replica."""
        if not self._manager.should_commit():
            return False
        if step != self.committed_steps:  # torchft counts a round as one step
            self._count_from(step)
        return True

    def _count_from(self, step: int) -> None:
        self._manager.load_state_dict({"step": step, "batches_committed": 0})

    def leave(self) -> None:
        """Let replicas that missed the last step load its result, and end."""
        try:
            self._manager.start_quorum(timeout=_FAREWELL)
        except (RuntimeError, TimeoutError) as error:
            logger.info("No other replica needs the final state: %s", error)

    def close(self) -> None:
        """End the servers of this replica."""
        self._manager.shutdown(wait=False)


def _buckets(tensors: Iterable[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Groups of tensors of one type that are exchanged together. The same on every replica."""
    waiting: dict[tuple[torch.dtype, torch.device], list[torch.Tensor]] = {}
    for tensor in tensors:
        bucket = waiting.setdefault((tensor.dtype, tensor.device), [])
        bucket.append(tensor)
        if sum(each.nbytes for each in bucket) >= _BUCKET_BYTES:
            yield waiting.pop((tensor.dtype, tensor.device))
    yield from waiting.values()


def _finish(work: Any, flat: torch.Tensor, bucket: Sequence[torch.Tensor]) -> None:
    work.wait()
    for tensor, summed in zip(bucket, _unflatten_dense_tensors(flat, bucket), strict=True):
        tensor.copy_(summed)
