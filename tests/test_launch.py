"""The scripts that start a run on several nodes, with stand-ins for the scheduler's commands."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
LAUNCH = ROOT / "launch"
NODES = ["gpu-a", "gpu-b", "gpu-c"]
ARGUMENTS = ["a run", "--training.steps=3"]

# Writes down how it was called, then does the rest of its program.
RECORDER = f"""#!{sys.executable}
import json, os, subprocess, sys
name = os.path.basename(sys.argv[0])
with open(os.environ["RECORD"], "a") as file:
    end = os.environ.get("BLENDTITAN_END_TIME")
    call = {{"name": name, "arguments": sys.argv[1:], "cwd": os.getcwd(), "end": end}}
    file.write(json.dumps(call) + "\\n")
"""

SCONTROL = 'print(*os.environ["STAND_IN_NODES"].split(","), sep="\\n")'

# Starts the program on every node at once, each with its rank, as srun and mpiexec do.
LAUNCHER = """
program = sys.argv.index("blendtitan")
ranks = range(len(os.environ["STAND_IN_NODES"].split(",")))
variable = {"srun": "SLURM_NODEID", "mpiexec": "PALS_RANKID"}[name]
nodes = [
    subprocess.Popen(sys.argv[program:], env=os.environ | {variable: str(rank)}) for rank in ranks
]
sys.exit(max([node.wait() for node in nodes]))
"""


class Cluster:
    """A folder of stand-ins, and the environment that a scheduler gives a job."""

    def __init__(self, folder: Path, nodes: list[str], stand_ins: dict[str, str]) -> None:
        self.record = folder / "record"
        (folder / "bin").mkdir()
        for name, program in stand_ins.items():
            path = folder / "bin" / name
            path.write_text(RECORDER + program)
            path.chmod(0o755)
        node_file = folder / "nodes"
        # Nodes of several chunks are named several times.
        node_file.write_text("".join(f"{node}\n{node}\n" for node in nodes))
        self.environment = {
            "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin",
            "RECORD": str(self.record),
            "STAND_IN_NODES": ",".join(nodes),
            "SLURM_SUBMIT_DIR": str(ROOT),
            "SLURM_JOB_NODELIST": "compressed[names]",
            "SLURM_JOB_NUM_NODES": str(len(nodes)),
            "SLURM_JOB_ID": "1234567",
            "PBS_O_WORKDIR": str(ROOT),
            "PBS_NODEFILE": str(node_file),
            "PBS_JOBID": "7654321.server",
        }

    def submit(self, script: str, arguments: list[str], **environment: str) -> str:
        """Run a job script as the scheduler does, outside of the project's folder; its output."""
        done = subprocess.run(
            ["bash", str(LAUNCH / script), *arguments],
            cwd=self.record.parent,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def calls(self, name: str) -> list[dict[str, Any]]:
        """How a stand-in was called."""
        entries = [json.loads(line) for line in self.record.read_text().splitlines()]
        return [entry for entry in entries if entry["name"] == name]


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    """Three nodes, on which blendtitan only writes down how it is started."""
    programs = {"scontrol": SCONTROL, "srun": LAUNCHER, "mpiexec": LAUNCHER, "blendtitan": ""}
    programs["qstat"] = 'print("Job Id: 1\\n    Resource_List.walltime = 01:30:08")'
    return Cluster(tmp_path, NODES, programs)


@pytest.mark.parametrize("script", sorted(LAUNCH.iterdir()), ids=lambda path: path.name)
def test_the_scripts_are_valid_and_can_be_started(script: Path) -> None:
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize(
    ("script", "port", "job_id"),
    [("slurm.sh", 24567, "1234567"), ("pbs.sh", 24321, "7654321.server")],
)
def test_the_command_starts_on_every_node_and_meets_on_the_first(
    cluster: Cluster, script: str, port: int, job_id: str
) -> None:
    in_words = [argument.replace(" ", "_") for argument in ARGUMENTS]
    if script == "slurm.sh":
        cluster.submit(script, in_words)
    else:  # qsub passes no arguments
        cluster.submit(script, [], ARGUMENTS=" ".join(in_words))
    runs = cluster.calls("blendtitan")

    assert len(runs) == 3
    for run in runs:
        assert run["cwd"] == str(ROOT)
        assert run["arguments"] == [
            *("train", "--nnodes", "3", "--rendezvous", f"gpu-a:{port}", "--job-id", job_id),
            *in_words,
        ]


def test_slurm_starts_one_task_on_each_node_with_all_its_cores(cluster: Cluster) -> None:
    cluster.submit("slurm.sh", ARGUMENTS)
    (scontrol,) = cluster.calls("scontrol")
    (srun,) = cluster.calls("srun")

    assert scontrol["arguments"] == ["show", "hostnames", "compressed[names]"]
    assert srun["arguments"][:4] == ["--nodes", "3", "--ntasks-per-node", "1"]
    assert srun["arguments"][4:8] == ["--cpu-bind", "none", "--kill-on-bad-exit", "1"]
    assert srun["arguments"][-2:] == ARGUMENTS, "an argument with a blank stays one"


def test_pbs_starts_one_process_on_each_node_with_all_its_cores(cluster: Cluster) -> None:
    """A node that has several chunks counts once."""
    cluster.submit("pbs.sh", [], ARGUMENTS="--training.steps 3")
    (mpiexec,) = cluster.calls("mpiexec")

    assert mpiexec["arguments"][:4] == ["-n", "3", "--ppn", "1"]
    assert mpiexec["arguments"][4:8] == [
        *["--hostfile", cluster.environment["PBS_NODEFILE"], "--cpu-bind", "none"]
    ]


def test_a_run_knows_when_its_job_ends(cluster: Cluster) -> None:
    """Slurm sends it a signal before, and PBS tells how long the job may take."""
    begun = time.time()
    cluster.submit("pbs.sh", [])
    (mpiexec,) = cluster.calls("mpiexec")

    assert begun - 1 <= int(mpiexec["end"]) - 5408 <= time.time()
    assert "#SBATCH --signal=USR1@180\n" in (LAUNCH / "slurm.sh").read_text()


def test_a_wall_time_that_pbs_does_not_tell_is_mentioned(cluster: Cluster) -> None:
    (cluster.record.parent / "bin/qstat").write_text("#!/bin/sh\nexit 1\n")

    assert "set guards.wall_time_minutes" in cluster.submit("pbs.sh", [])
    assert cluster.calls("mpiexec")[0]["end"] is None


def test_the_environment_chooses_the_port(cluster: Cluster) -> None:
    cluster.submit("slurm.sh", [], PORT="29500")

    assert "gpu-a:29500" in cluster.calls("blendtitan")[0]["arguments"]


EDITS = re.findall(r"^    (sed -i .+)$", (ROOT / "docs/launching.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("script", ["slurm.sh", "pbs.sh"])
@pytest.mark.parametrize("edit", EDITS, ids=["pyxis", "apptainer"])
def test_the_documented_edits_start_the_command_in_a_container(
    cluster: Cluster, tmp_path: Path, script: str, edit: str
) -> None:
    """Between the launcher's own options and the command, in a copy of the script."""
    run = shutil.copytree(LAUNCH, tmp_path / "my-run")
    *sed, _ = shlex.split(edit)
    subprocess.run([*sed, run / script], check=True)
    cluster.submit(str(run / script), ["a run"])
    (launcher,) = cluster.calls("srun" if script == "slurm.sh" else "mpiexec")
    words = launcher["arguments"]
    place = words.index("none") + 1  # after --cpu-bind none
    container = words[place : words.index("blendtitan")]

    assert len(cluster.calls("blendtitan")) == 3
    if "sqsh" in edit:
        image, mounts = "/shared/blendtitan.sqsh", "/shared:/shared"
        assert container[-6:-2] == ["--container-image", image, "--container-mounts", mounts]
        assert container[-2:] == ["--container-workdir", str(ROOT)]
    else:
        image = "/shared/blendtitan.sif"
        assert container[-6:] == ["apptainer", "exec", "--nv", "--bind", "/shared", image]
