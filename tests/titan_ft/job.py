"""A job of several replicas in processes of their own, with a lighthouse in the test's process."""

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from tests.titan.conftest import Job, small_job
from tests.titan.launched import Launched

TIMEOUT_S = 240
GLOBAL_BATCH_SIZE = 8
ALONE = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
ALONE |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "0"}


def replica(*arguments: str) -> None:
    """What each replica does."""
    from torchtitan import trainer

    from blendtitan.titan import masking
    from tests.titan_ft import recorded_replica

    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    trainer.time = SimpleNamespace(**vars(time) | {"sleep": lambda seconds: None})
    masking.check_masks = lambda *_: None  # see ``tests.titan.unmasked``
    recorded_replica.main(*arguments)


class ReplicatedJob(Job):
    """A job of several replicas."""

    lighthouse = ""
    """Address of the lighthouse."""

    processes = 1
    """Processes of a replica."""

    started: list[Launched]
    """Every process of a replica so far."""

    @property
    def record(self) -> Path:
        """Where the replicas write down what they do."""
        return self.folder / "record"

    def start(self, replica_id: int, *arguments: str, **more: str) -> Launched:
        """Start a replica, with more variables in its environment."""
        words = ["--job.config_file", str(self.folder / "run.toml"), *arguments]
        words += ["--fault_tolerance.replica_id", str(replica_id)]
        environment = {"TORCHFT_LIGHTHOUSE": self.lighthouse, "RUST_LOG": "off"}
        environment |= {"RECORD": str(self.record), **more}
        record = Path(environment["RECORD"]).with_name(f"replica_{replica_id}")
        if self.processes == 1:
            environment |= ALONE
            run = Launched.start_rank(words, environment=environment, record=record, entry=replica)
        else:
            run = Launched.start(
                words,
                processes=self.processes,
                environment=environment,
                record=record,
                entry=replica,
            )
        self.started.append(run)
        return run

    def lines(self, replica_id: int) -> list[dict[str, Any]]:
        """What a replica wrote down, over all its starts."""
        path = Path(f"{self.record}.{replica_id}")
        text = path.read_text() if path.exists() else ""
        # The replica may be writing the last line.
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def committed(self) -> int:
        """The last step that a replica is known to have committed."""
        replicas = range(self.settings["fault_tolerance"]["group_size"])
        steps = [e["step"] for r in replicas for e in self.lines(r) if "loss" in e]
        return max(steps, default=0)

    def end_at(self, step: int, runs: list[Launched]) -> None:
        """End the job after a step that is not reached yet, and wait for all replicas."""
        path = Path(f"{self.record}.stop.new")
        path.write_text(str(step))
        path.rename(f"{self.record}.stop")
        for run in runs:
            assert run.wait(TIMEOUT_S) == 0, run.output[-5000:]


def replicated_job(folder: Path, tokenizer_path: Path, **settings: Any) -> ReplicatedJob:
    """Three replicas of the debug model, 8 samples in a step, a checkpoint every 5."""
    job = small_job(folder, tokenizer_path)
    job.settings["training"] |= {"steps": 100000, "global_batch_size": GLOBAL_BATCH_SIZE}
    job.settings["training"] |= {"local_batch_size": 1}
    job.settings["lr_scheduler"]["total_steps"] = 1000
    job.settings["blendcorpus"]["max_epochs"] = 0
    job.settings["checkpoint"] |= {"interval": 5, "keep_latest_k": 0}
    job.settings["metrics"]["enable_tensorboard"] = True
    job.settings["fault_tolerance"] = {"enable": True, "group_size": 3, **settings}
    made = ReplicatedJob(job.folder, job.settings)
    made.started = []
    made.write_toml()
    return made


@contextmanager
def lighthouse(job: ReplicatedJob, *, min_replicas: int = 1) -> Iterator[None]:
    """Give a job a lighthouse. In the end, no process of it is left.

    An error has the logs of all replicas as notes.

    Replicas may be slow on a busy machine. If the lighthouse did not wait for the one that is left,
    those that start again would continue from a checkpoint without it.
    """
    from torchft.coordination import LighthouseServer

    server = LighthouseServer(
        bind="[::]:0",
        min_replicas=min_replicas,
        join_timeout_ms=20000,
        quorum_tick_ms=50,
        heartbeat_timeout_ms=1500,
    )
    job.lighthouse = server.address()
    try:
        yield
    except BaseException as error:
        for log, output in {run.log: run.output for run in job.started}.items():
            error.add_note(f"{log}:\n{output[-10000:]}")
        raise
    finally:
        for run in filter(Launched.is_alive, job.started):
            kill(run)
        server.shutdown()


def wait_for(condition: Callable[[], object], *runs: Launched) -> None:
    """Wait for a condition while some replicas live."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        for run in runs:
            assert run.is_alive(), run.output[-5000:]
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def kill(run: Launched) -> None:
    """Kill all processes of a replica."""
    assert run.process.pid is not None
    with suppress(ProcessLookupError):
        os.killpg(run.process.pid, signal.SIGKILL)  # each replica has a session of its own
    run.process.kill()  # it may have just begun
    run.process.join(TIMEOUT_S)


def kill_and_restart(
    job: ReplicatedJob, runs: list[Launched], victims: list[int], rng: random.Random
) -> None:
    """Kill replicas at a random moment, and wait until they take part again."""
    at = job.committed()
    wait_for(lambda: job.committed() > at, *runs)
    time.sleep(rng.uniform(0, 0.3))
    began = {victim: len(job.lines(victim)) for victim in victims}
    for victim in victims:
        kill(runs[victim])
        runs[victim] = job.start(victim)
    wait_for(lambda: all(len(job.lines(each)) > began[each] + 1 for each in victims), *runs)


def counted_attempts(lines: list[dict[str, Any]], steps: range) -> dict[int, list[dict[str, Any]]]:
    """The contributions to the attempt at each step that the result of the last step rests on."""
    in_time = sorted(lines, key=lambda line: line["time"])
    attempt, found = in_time[-1]["attempt"], dict[int, list[dict[str, Any]]]()
    for step in reversed(steps):
        found[step] = [line for line in lines if (line["step"], line["attempt"]) == (step, attempt)]
        (attempt,) = {part["before"] for part in found[step]}
    assert attempt == 0
    return found
