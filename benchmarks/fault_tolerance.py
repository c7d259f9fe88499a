"""Measures what replicas cost without failures, and how soon a job continues after one.

    python benchmarks/fault_tolerance.py --folder FOLDER [--steps 40] [--kills 5]

It trains the debug model on a CPU: without replicas, as one replica, and as three, of which one is
killed again and again. Times are those of the lines that a run logs for each step.
"""

import argparse
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
            wait(lambda killed=killed: max(step_times(logs[0]).values()) > killed + 0.3)
            gaps.append(min(at for at in step_times(logs[0]).values() if at > killed) - killed)
            began, steps = time.time(), len(step_times(logs[1]))
            runs[1] = start(folder, "three", 1, 3, 100000)
            wait(lambda steps=steps: len(step_times(logs[1])) > steps)
            returns.append(max(step_times(logs[1]).values()) - began)
    finally:
        for run in runs:
            with suppress(ProcessLookupError):
                run.kill()
    print("from a kill to the next committed step, s:", [f"{each:.2f}" for each in gaps])
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
