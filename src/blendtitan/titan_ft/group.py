"""This replica among the replicas of a job, through torchft's ``Manager``.

Private names of torchft are not used, except in ``close``. ``tests/titan_ft`` checks what is relied
on.
"""

import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from blendtitan.errors import ConfigError, requires_extra
from blendtitan.settings.replicas import LIGHTHOUSE, check_lighthouse
from blendtitan.titan.shared_catalog import from_first_rank
from blendtitan.titan_ft.rank_state import State
from blendtitan.titan_ft.settings import FaultToleranceSettings
from blendtitan.visible import drop_logs, visible_logger

with requires_extra("torchft", "fault_tolerance.enable = true"):
    import torchft

logger = visible_logger(__name__)

_BUCKET_BYTES = 64 * 2**20
"""Bytes of gradients in one exchange."""

_QUORUM = timedelta(minutes=10)
"""Longest wait for the other replicas. They may validate, or save a checkpoint."""

_FAREWELL = timedelta(seconds=15)
_CONNECT = timedelta(seconds=10)

_LOOK_SECONDS = 0.05, 1.0
"""Time between two looks at signals and lighthouse during a wait: at first, and at most."""

_LOST_LOOKS = 5
"""Looks in a row that find no lighthouse, after which it counts as lost."""

_RETRY_SECONDS = 0.5
"""Time before the next question who takes part, if there is no step to make."""


class Place(NamedTuple):
    """The place of this replica among those that take part in a step."""

    replica: int
    num_replicas: int


class EndedWaitError(Exception):
    """The run is to end while it waits for other replicas."""

    def __init__(self, reason: int) -> None:
        self.reason = reason
        super().__init__(reason)


class ReplicaGroup:
    """The replicas of a job, as one rank of one of them sees them."""

    def __init__(
        self,
        settings: FaultToleranceSettings,
        *,
        device: torch.device,
        save: Callable[[], State],
        load: Callable[[State], None],
    ) -> None:
        """Connect to the lighthouse.

        Args:
            settings: The settings of this replica.
            device: The device of this rank.
            save: Returns the state of this rank, for a replica that joins.
            load: Loads the state of the same rank of another replica. Not a collective operation.

        Raises:
            ConfigError: There is no lighthouse.
        """
        address = check_lighthouse()
        # Several lines per step, and a traceback for each replica that fails.
        drop_logs(r"$|\[replica_\d+:|Started CheckpointServer|fetching checkpoint|transferring")
        warnings.filterwarnings("ignore", "The given buffer is not writable")
        self._lighthouse, self._device, self._load = address, device, load
        self._min_replicas = settings.min_replica_size
        self._forgets = False
        self._repeats = False
        """Whether the last attempt was not committed."""
        self._received: State | None = None
        self._server: TCPStore | None = None
        self._timeout = timedelta(milliseconds=settings.process_group_timeout_ms)
        kinds = {"gloo": torchft.ProcessGroupGloo, "nccl": torchft.ProcessGroupNCCL}
        host, port = self._store()
        try:
            self._manager = torchft.Manager(
                pg=kinds[settings.process_group](timeout=self._timeout),
                load_state_dict=self._receive,
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

    def begin(self, committed_steps: int, reason_to_end: Callable[[], int]) -> Place | None:
        """Agree on who takes part in the next step. The state of another replica may be loaded.

        Args:
            committed_steps: Steps committed so far.
            reason_to_end: Why this rank asks to end the run; 0 if it does not.

        Returns:
            None: a rank of this replica could not connect to another replica, or not load its
            state. Nothing has changed.

        Raises:
            ConfigError: There is no lighthouse any more, or too few replicas came.
            EndedWaitError: A rank of this replica asks to end the run.
        """
        if self._repeats and (reason := self._on_any_rank(reason_to_end())[0]):
            raise EndedWaitError(reason)
        forgot, self._forgets, self._repeats = self._forgets, False, True
        if forgot or committed_steps != self.committed_steps:
            self._count_from(0 if forgot else committed_steps)
        if self._ask(committed_steps, reason_to_end):
            self._received, self._forgets = None, forgot
            self._count_from(committed_steps)
            self.pass_over("a rank of this replica failed")
            return None
        if self._received is not None:
            self._load(self._received)
            self._received = None
        place = self._manager.participating_rank()
        assert place is not None  # only asynchronous quorums have spares
        return Place(place, self._manager.num_participants())

    def has_enough(self, place: Place) -> bool:
        """Whether as many replicas take part as must."""
        return place.num_replicas >= self._min_replicas

    def pass_over(self, reason: str) -> None:
        """Make no step, and wait for a moment."""
        self.fail(reason)
        self._manager.should_commit()
        time.sleep(_RETRY_SECONDS)

    def _ask(self, committed_steps: int, reason_to_end: Callable[[], int]) -> int:
        """Ask the lighthouse who takes part, and connect to them; whether any rank failed.

        The ranks of this replica agree on the result: one may have the state of another replica
        that another one could not receive.
        """
        call, lost = _Call(self._manager.start_quorum, self._device), 0
        pause, most = _LOOK_SECONDS
        while True:
            is_done = call.is_done.wait(pause)
            is_found = is_done or dist.get_rank() > 0 or self._finds_lighthouse()
            lost = 0 if is_found else lost + 1
            is_broken = call.error is not None or lost >= _LOST_LOOKS
            waits, reason, is_broken, failed = self._on_any_rank(
                not is_done, reason_to_end(), is_broken, is_done and self.has_failed()
            )
            if is_broken:
                raise self._no_answer(committed_steps + 1, call.error)
            if not waits:
                return failed
            if reason:
                raise EndedWaitError(reason)
            pause = min(2 * pause, most)

    def _no_answer(self, step: int, error: Exception | None) -> ConfigError:
        return ConfigError(
            f"the replicas did not agree on who takes part in step {step:,}: "
            f"{error or 'no lighthouse answers'}. Check the lighthouse at {self._lighthouse}, and "
            f"that enough replicas run, and start this one again."
        )

    def _finds_lighthouse(self) -> bool:
        """Whether a server answers at its address. torchft would wait for another one."""
        url = urlsplit(self._lighthouse)
        with (
            suppress(OSError),
            socket.create_connection((url.hostname, url.port or 80), timeout=10),
        ):
            return True
        return False

    def _on_any_rank(self, *numbers: int) -> list[int]:
        """The largest of each number on any rank of this replica."""
        if dist.get_world_size() == 1:
            return [*numbers]
        most = torch.tensor(numbers, dtype=torch.int32, device=self._device)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        return most.tolist()

    def _receive(self, state: State) -> None:
        # Loaded later, if all ranks of this replica received theirs.
        self._received = state

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
        self._repeats = False
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
        """End the servers of this replica, and its wait for others, if there is one."""
        self._manager.shutdown(wait=False)
        # Else a thread of torchft, and with it the process, would wait for the lighthouse's answer.
        self._manager._manager = None


class _Call:
    """A call in a thread of its own, so that this one can look for signals."""

    def __init__(self, function: Callable[[], None], device: torch.device) -> None:
        self.error: RuntimeError | TimeoutError | None = None
        self.is_done = threading.Event()
        threading.Thread(target=self._run, args=(function, device), daemon=True).start()

    def _run(self, function: Callable[[], None], device: torch.device) -> None:
        try:
            if device.type != "cpu":
                torch.accelerator.set_device_index(device)  # of this thread
            function()
        except (RuntimeError, TimeoutError) as error:
            self.error = error
        finally:
            self.is_done.set()


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
