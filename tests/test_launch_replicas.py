"""``launch/fault_tolerant.sh``, with stand-ins for training and the lighthouse."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import wait_until

SCRIPT = Path(__file__).parents[1] / "launch/fault_tolerant.sh"

# Writes down how it was started; a lighthouse, and a replica told to, stays until it is ended.
PROGRAM = f"""#!{sys.executable}
import json, os, signal, sys, time
name = os.path.basename(sys.argv[0])
place = sys.argv[sys.argv.index("--fault_tolerance.replica_id") + 1] if "train" in sys.argv else ""
def end(*_):
    if place:  # as when it saves a checkpoint
        time.sleep(0.5)
    with open(os.environ["RECORD"] + ".ended", "a") as file:
        file.write(name + "\\n")
    sys.exit(1)
signal.signal(signal.SIGTERM, end)
kept = ("TORCHFT_LIGHTHOUSE", "CUDA_VISIBLE_DEVICES")
entry = {{"name": name, "pid": os.getpid(), "words": sys.argv[1:], "place": place}}
with open(os.environ["RECORD"], "a") as file:
    file.write(json.dumps(entry | {{key: os.environ.get(key) for key in kept}}) + "\\n")
print("2026 [INFO] [torchft::manager] - noise")
print("a line of replica", place)
if name == "torchft_lighthouse" or os.environ.get("STAYS"):
    time.sleep(60)
sys.exit(int(os.environ.get("STATUS_" + place, 0)))
"""


class Script:
    """The script in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "bin").mkdir()
        for name in ("blendtitan", "torchft_lighthouse"):
            (folder / "bin" / name).write_text(PROGRAM)
            (folder / "bin" / name).chmod(0o755)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start it."""
        path = f"{self._folder / 'bin'}:{os.environ['PATH']}"
        own = {"PATH": path, "RECORD": str(self._folder / "record")}
        return subprocess.Popen([SCRIPT, *arguments], cwd=self._folder, env=own | environment)

    def ended(self) -> list[str]:
        """The names of the stand-ins that were ended, in this order."""
        return (self._folder / "record.ended").read_text().split()

    def started(self, name: str = "blendtitan") -> list[dict[str, Any]]:
        """The stand-ins that were started, replicas in the order of their numbers."""
        path = self._folder / "record"
        lines = path.read_text().splitlines() if path.exists() else []
        entries = [json.loads(line) for line in lines]
        return sorted((e for e in entries if e["name"] == name), key=lambda e: e["place"])


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path)


def test_it_starts_a_lighthouse_and_each_replica_with_its_gpu(
    script: Script, tmp_path: Path
) -> None:
    assert script.start("my run", "2", "--training.steps", "3").wait(30) == 0

    first, second = script.started()
    assert first["words"] == [
        *("train", "my run", "--nproc", "1", "--fault_tolerance.enable"),
        *("--fault_tolerance.group_size", "2", "--fault_tolerance.replica_id", "0"),
        *("--training.steps", "3"),
    ]
    assert [each["CUDA_VISIBLE_DEVICES"] for each in (first, second)] == ["0", "1"]
    assert second["TORCHFT_LIGHTHOUSE"].endswith(":29510")
    assert len(script.started("torchft_lighthouse")) == 1
    log = (tmp_path / "fault_tolerant_logs/replica_1.log").read_text()
    assert log == "a line of replica 1\n"


def test_each_replica_has_as_many_gpus_as_processes(script: Script) -> None:
    assert script.start("run", "2", NPROC="2", CUDA_VISIBLE_DEVICES="a,b,c,d").wait(30) == 0

    assert [each["CUDA_VISIBLE_DEVICES"] for each in script.started()] == ["a,b", "c,d"]
    assert all(each["words"][2:4] == ["--nproc", "2"] for each in script.started())


def test_on_several_machines_each_starts_its_own_replicas(script: Script) -> None:
    elsewhere = {"TORCHFT_LIGHTHOUSE": "http://node0:29510", "ALL_REPLICAS": "4"}
    elsewhere |= {"FIRST_REPLICA": "2", "CUDA_VISIBLE_DEVICES": "a,b"}
    assert script.start("run", "2", **elsewhere).wait(30) == 0

    assert [each["place"] for each in script.started()] == ["2", "3"]
    assert [each["CUDA_VISIBLE_DEVICES"] for each in script.started()] == ["a", "b"]
    assert all("4" in each["words"] for each in script.started())
    assert not script.started("torchft_lighthouse")


def test_a_replica_that_fails_at_once_is_started_three_times_and_others_are_not(
    script: Script,
) -> None:
    assert script.start("run", "2", STATUS_0="1").wait(60) == 1

    assert [each["place"] for each in script.started()] == ["0", "0", "0", "1"]


def test_it_ends_with_everything_it_started_and_the_lighthouse_last(script: Script) -> None:
    """A replica that saves a checkpoint, and ends, needs the lighthouse until then."""
    process = script.start("run", "2", STAYS="1")
    wait_until(lambda: len(script.started()) == 2 and script.started("torchft_lighthouse"))
    process.send_signal(signal.SIGTERM)

    assert process.wait(30) == 143
    pids = [
        each["pid"]
        for name in ("blendtitan", "torchft_lighthouse")
        for each in script.started(name)
    ]
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    assert script.ended() == ["blendtitan", "blendtitan", "torchft_lighthouse"]
