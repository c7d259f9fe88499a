"""Measures what replicas cost without failures, and how soon a job continues after one.

    python benchmarks/fault_tolerance.py --folder FOLDER [--steps 40] [--kills 5]

It measures what replicas do in a step beside training. Then it trains the debug model on a CPU:
without replicas, as one replica, as two, and as three, of which one is killed again and again. The
times of steps are those of the lines that a run logs for each of them.
"""

import argparse
import multiprocessing
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path

from blendtitan.prepare.demo import train_tokenizer, write_jsonl
from blendtitan.prepare.mix import MixConfig, mix
from blendtitan.prepare.tokenize import TokenizeConfig, tokenize

ROOT = Path(__file__).parents[1]
PORT = 29741
ALONE = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
ALONE |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "0", "OMP_NUM_THREADS": "1"}
STEP = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) - root - INFO - \S*step: +(\d+)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--kills", type=int, default=5)
    options = parser.parse_args()
    folder = options.folder
    folder.mkdir()
    write_data(folder)
    print(f"load average {os.getloadavg()[0]:.1f}")
    words = ["--bind", f"[::]:{PORT}", "--min_replicas", "1", "--heartbeat_timeout_ms", "1000"]
    program = Path(sys.executable).with_name("torchft_lighthouse")
    lighthouse = subprocess.Popen([program, *words], stderr=subprocess.DEVNULL)
    try:
        for replicas in (1, 2, 3):
            measure_parts(replicas, options.steps)
        for name, replicas in (("plain", 0), ("one", 1), ("two", 2)):
            runs = [start(folder, name, n, replicas, options.steps) for n in range(replicas or 1)]
            for run in runs:
                assert run.wait() == 0, f"{folder}/{name}: see the logs"
            times = list(step_times(folder / f"{name}_0.log").values())[5:]
            steps = [after - before for before, after in pairwise(times)]
            print(f"{name}: median step {statistics.median(steps) * 1000:.0f} ms", steps)
        kill_replicas(folder, options.kills)
    finally:
        lighthouse.kill()


def write_data(folder: Path) -> None:
    texts = [
        f"Document {n}. " + " ".join(f"word{n * k % 97}" for k in range(60)) for n in range(99)
    ]
    for corpus in ("code", "web"):
        write_jsonl(folder / "text" / corpus, texts)
    (folder / "tokenizer.model").write_bytes(train_tokenizer(texts, vocab_size=300))
    tokenize(
        [folder / "text"], folder / "tokens", TokenizeConfig(tokenizer=folder / "tokenizer.model")
    )
    mix([folder / "tokens"], folder / "file_list.txt", MixConfig())


def measure_parts(replicas: int, steps: int) -> None:
    """Time of each part of a step in which nothing is trained, in the first replica."""
    context = multiprocessing.get_context("spawn")
    times, barrier = context.SimpleQueue(), context.Barrier(replicas)
    arguments = replicas, steps, barrier, times
    runs = [context.Process(target=make_steps, args=(n, *arguments)) for n in range(replicas)]
    for run in runs:
        run.start()
    for part, found in times.get().items():
        least, median = 1000 * min(found), 1000 * statistics.median(found)
        print(f"{replicas} replicas: {part}: {least:.1f} ms, median {median:.1f} ms")
    for run in runs:
        run.join()


def make_steps(
    number: int,
    replicas: int,
    steps: int,
    barrier: Barrier,
    times: "SimpleQueue[dict[str, list[float]]]",
) -> None:
    """Exchange gradients of 9 million parameters without training."""
    os.environ |= ALONE | {"TORCHFT_LIGHTHOUSE": f"http://localhost:{PORT}", "RUST_LOG": "off"}
    from blendtitan.titan import prepare

    prepare()  # before torchtitan is imported
    import torch
    import torch.distributed as dist

    from blendtitan.titan_ft.group import ReplicaGroup
    from blendtitan.titan_ft.settings import FaultToleranceSettings

    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    settings = FaultToleranceSettings(enable=True, replica_id=number, group_size=replicas)
    cpu = torch.device("cpu")
    group = ReplicaGroup(settings, device=cpu, save=lambda: {}, load=lambda _: None)
    gradients = [torch.ones(300, 1000) for _ in range(30)]
    numbers = torch.zeros(2 + replicas, dtype=torch.int64)
    found: dict[str, list[float]] = {}
    barrier.wait()
    for step in range(steps + 5):
        parts = {
            "agree": lambda step=step: group.begin(step, lambda: 0),
            "labels": lambda: group.sum([numbers]),
            "gradients": lambda: group.sum(gradients),
            "commit": lambda step=step: group.commit(step + 1),
        }
        for part, run in parts.items():
            began = time.perf_counter()
            run()
            if step >= 5:
                found.setdefault(part, []).append(time.perf_counter() - began)
    if number == 0:
        times.put(found)
    barrier.wait()
    group.close()


def start(
    folder: Path, name: str, number: int, replicas: int, steps: int
) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "blendtitan.titan.train"]
    words += ["--job.config_file", ROOT / "configs/debug.toml", "--job.dump_folder", folder / name]
    words += ["--model.tokenizer_path", folder / "tokenizer.model", f"--training.steps={steps}"]
    words += ["--training.seq_len=64"]
    words += ["--blendcorpus.data_file_list", folder / "file_list.txt", "--metrics.log_freq=1"]
    words += ["--training.global_batch_size=6", "--training.local_batch_size=1"]
    words += [
        "--blendcorpus.max_epochs=0",
        "--validation.no_enable",
        "--checkpoint.enable",
        "--checkpoint.interval=100000",
    ]
    if replicas:
        words += ["--fault_tolerance.enable", f"--fault_tolerance.group_size={replicas}"]
        words += [f"--fault_tolerance.replica_id={number}"]
    environment = os.environ | ALONE | {"TORCHFT_LIGHTHOUSE": f"http://localhost:{PORT}"}
    with (folder / f"{name}_{number}.log").open("ab") as log:
        return subprocess.Popen(list(map(str, words)), env=environment, stdout=log, stderr=log)


def step_times(log: Path) -> dict[int, float]:
    """When a run logged each step, in seconds."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(errors="replace"))
    found = STEP.findall(text)
    return {
        int(step): datetime.strptime(at, "%Y-%m-%d %H:%M:%S,%f").timestamp() for at, step in found
    }


def kill_replicas(folder: Path, kills: int) -> None:
    """Kill the second of three replicas again and again, and start it again."""
    runs = [start(folder, "three", n, 3, 100000) for n in range(3)]
    logs = [folder / f"three_{n}.log" for n in range(3)]
    gaps, returns = list[float](), list[float]()
    try:
        wait(lambda: len(step_times(logs[1])) > 5)
        for _ in range(kills):
            time.sleep(2)
            killed = time.time()
            runs[1].send_signal(signal.SIGKILL)
            runs[1].wait()
            wait(lambda killed=killed: max(step_times(logs[0]).values()) > killed + 1)
            # The step may have been committed when the replica was killed; then the next is longer.
            pairs = pairwise(step_times(logs[0]).values())
            gaps.append(max(b - a for a, b in pairs if killed < b and a < killed + 1))
            began, steps = time.time(), len(step_times(logs[1]))
            runs[1] = start(folder, "three", 1, 3, 100000)
            wait(lambda steps=steps: len(step_times(logs[1])) > steps)
            returns.append(max(step_times(logs[1]).values()) - began)
    finally:
        for run in runs:
            with suppress(ProcessLookupError):
                run.kill()
    print("longest step around a kill, s:", [f"{each:.2f}" for each in gaps])
    print(
        "from a start to the first step it takes part in, s:", [f"{each:.1f}" for each in returns]
    )


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


if __name__ == "__main__":
    main()
