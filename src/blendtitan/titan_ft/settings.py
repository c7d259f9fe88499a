"""``[fault_tolerance]``: the keys of TorchTitan's experiment, and what a step has meanwhile."""

from dataclasses import dataclass
from typing import Literal

from blendtitan.order.replicas import BatchPolicy


@dataclass(kw_only=True, slots=True)
class FaultToleranceSettings:
    """``[fault_tolerance]``: replicas that may fail and join while the job trains, with torchft."""

    enable: bool = False
    """Train as one replica of a job. Its lighthouse is named by ``TORCHFT_LIGHTHOUSE``."""

    process_group: Literal["gloo", "nccl"] = "gloo"
    """Communication between replicas. Within a replica, PyTorch's is used."""

    process_group_timeout_ms: int = 10000
    """Time after which an exchange between replicas counts as failed, with ``gloo``."""

    replica_id: int = 0
    """Number of this replica, from 0 to ``group_size`` - 1."""

    group_size: int = 0
    """Replicas of the job when none is missing."""

    min_replica_size: int = 1
    """Replicas that must take part in a step."""

    batch_policy: BatchPolicy = "same_batch"
    """Samples of a step while replicas are missing: ``same_batch``, which those left divide among
    themselves, or ``smaller_batch``, the usual share of each replica that is left."""

    semi_sync_method: str | None = None
    """``diloco`` or ``local_sgd``: replicas train by themselves, and exchange changes of the model
    every ``sync_steps`` steps. None: they exchange gradients in every step."""

    sync_steps: int = 5
    """Steps of a round of ``semi_sync_method``."""
