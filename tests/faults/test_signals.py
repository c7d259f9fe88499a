"""Signals that end training."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from blendtitan.claims.held import CLAIMS
from blendtitan.received_signals import note
from blendtitan.start.launch import INTERRUPTED
from blendtitan.stop_signals import REPEAT_SECONDS, StopSignals
from tests.faults import sabotage
from tests.faults.killing import wait_until
from tests.faults.training import TIMEOUT_S, FaultyJob, faulty_job, wait_for
from tests.titan.conftest import tokenizer_path
from tests.titan.launched import Launched

__all__ = ["tokenizer_path"]

pytestmark = pytest.mark.slow


@pytest.fixture
def job(tmp_path: Path, tokenizer_path: Path) -> FaultyJob:
    job = faulty_job(tmp_path, tokenizer_path)
    job.settings["training"]["steps"] = 1000
    job.settings["blendcorpus"]["max_epochs"] = 0
    job.settings["checkpoint"]["keep_latest_k"] = 2
    return job


def check_ended(job: FaultyJob, output: str) -> None:
    """Without an error or a traceback, and with intact checkpoints."""
    job.wait_until_gone()
    assert "Traceback" not in output
    assert "blendtitan train: " not in output
    assert job.state(job.complete_steps()[-1])


def test_ctrl_c_ends_a_run_quietly_and_keeps_its_checkpoints(job: FaultyJob) -> None:
    run = job.launch(processes=2)
    wait_for(lambda: 3 in job.steps_begun(), run)
    assert run.process.pid is not None
    os.kill(run.process.pid, signal.SIGINT)

    assert run.wait(TIMEOUT_S) == 128 + signal.SIGINT
    check_ended(job, run.output)
    assert run.output.count("Interrupted. The same command resumes") == 1


@pytest.mark.parametrize(
    ("processes", "victim", "number", "mode"),
    [
        (2, None, signal.SIGTERM, "async"),
        (2, 1, signal.SIGUSR1, "disabled"),
        (1, 0, signal.SIGTERM, "disabled"),
    ],
)
def test_a_signal_saves_a_checkpoint_of_one_step_on_all_ranks(
    job: FaultyJob, processes: int, victim: int | None, number: signal.Signals, mode: str
) -> None:
    """Whether torchrun or a single rank receives it, between two saves that the interval asks for.

    The claim on the folder is given up, so that a job on another node need not wait.
    """
    job.settings["checkpoint"] |= {"interval": 10_000, "async_mode": mode}
    run = job.launch(processes=processes)
    wait_for(lambda: 3 in job.steps_begun(), run)
    pid = run.process.pid if victim is None else job.pids()[victim]
    assert pid is not None
    os.kill(pid, number)

    assert run.wait(TIMEOUT_S) == INTERRUPTED
    check_ended(job, run.output)
    (step,) = job.complete_steps()
    assert f": saving a checkpoint of step {step} before the run ends." in run.output
    assert run.output.count("Interrupted. The same command resumes") == 1
    assert not list(Path(job.settings["job"]["dump_folder"]).glob(CLAIMS))
    assert max(job.steps_begun()) == step
    job.run("--training.steps", f"{step + 1}", processes=processes)
    assert set(job.steps_begun()) == {step + 1}
    assert job.samples() == {step + 1: job.expected_samples(step + 1)}


def documented_torchrun() -> list[str]:
    """The options that the page on guards gives torchrun."""
    page = (Path(__file__).parents[2] / "docs/guards.md").read_text()
    (line,) = (line for line in page.splitlines() if line.startswith("    torchrun "))
    return line.removesuffix("...").split()[1:]


@pytest.mark.parametrize(
    ("with_torchrun", "number"),
    [(True, signal.SIGTERM), (True, signal.SIGUSR1), (False, signal.SIGTERM)],
)
def test_commands_as_documented_save_a_checkpoint_after_a_signal(
    job: FaultyJob, with_torchrun: bool, number: signal.Signals
) -> None:
    """In processes of their own: torchrun with two ranks, and a run of one process."""
    job.settings["checkpoint"]["interval"] = 10_000
    job.settings["metrics"]["disable_color_printing"] = True
    path, log = str(job.write_toml()), job.folder / "log"
    words = ["-m", "blendtitan", "train", path, "--nproc", "1"]
    if with_torchrun:
        words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        words += [*documented_torchrun(), "-m", "blendtitan.titan.train", "--job.config_file", path]
    with log.open("w") as output:
        run = subprocess.Popen([sys.executable, *words], stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: "step:  3" in log.read_text() or run.poll() is not None)
        run.send_signal(number)
        # torchrun reports the signal as its own error.
        assert run.wait(TIMEOUT_S) == (1 if with_torchrun else INTERRUPTED), log.read_text()[-3000:]
    finally:
        run.kill()

    (step,) = job.complete_steps()
    assert f"Received {number.name}: saving a checkpoint of step {step} before" in log.read_text()
    assert job.state(step)
    assert not list(Path(job.settings["job"]["dump_folder"]).glob(CLAIMS))


def test_a_second_signal_ends_a_run_that_is_still_saving(job: FaultyJob) -> None:
    job.settings["checkpoint"]["interval"] = 10_000
    run = job.launch(processes=2, entry=sabotage.saves_for_ever)
    wait_for(lambda: 2 in job.steps_begun(), run)
    run.process.terminate()
    wait_for(lambda: "SIGTERM: saving" in run.output, run)
    time.sleep(REPEAT_SECONDS)
    run.process.terminate()

    assert run.wait(TIMEOUT_S) == 128 + signal.SIGTERM
    job.wait_until_gone()
    assert "ended by SIGTERM. The same command resumes" in run.output
    assert not job.complete_steps()


def test_all_ranks_stay_until_the_loggers_of_all_are_closed(job: FaultyJob) -> None:
    """An agent kills the ranks that remain when one has ended, and Slurm kills other nodes.

    They may be uploading what a logger holds.
    """
    run = job.launch(processes=2, entry=sabotage.closes_slowly)
    wait_for(lambda: 2 in job.steps_begun(), run)
    run.process.terminate()

    assert run.wait(TIMEOUT_S) == INTERRUPTED
    check_ended(job, run.output)
    assert Path(f"{job.records[-1]}_closed_0").exists()
    assert run.output.count("training loss: ") == 1
    assert run.output.count("Interrupted. The same command resumes") == 1


def test_a_signal_before_the_first_batch_ends_a_run_at_once(job: FaultyJob) -> None:
    """There is nothing to save yet, and a rank may hang."""
    run = job.launch(processes=2, entry=sabotage.waits_for_ever)
    wait_for(lambda: list(Path(job.settings["job"]["dump_folder"]).glob(CLAIMS)), run)
    run.process.terminate()

    assert run.wait(TIMEOUT_S) == INTERRUPTED
    job.wait_until_gone()
    assert not list(Path(job.settings["job"]["dump_folder"]).glob(CLAIMS))


@pytest.mark.parametrize("processes", [1, 2])
def test_a_signal_in_the_first_step_saves_it(job: FaultyJob, processes: int) -> None:
    """It may take minutes to compile."""
    run = job.launch(processes=processes, entry=sabotage.begins_slowly)
    wait_for(lambda: Path(f"{job.records[-1]}_in_first_step").exists(), run)
    os.kill(job.pids()[processes - 1], signal.SIGTERM)

    assert run.wait(TIMEOUT_S) == INTERRUPTED
    check_ended(job, run.output)
    if processes == 1:  # otherwise the output of the rank that received it is not shown
        assert "SIGTERM: the run ends after this step. A second one ends it at once." in run.output
    assert "Received SIGTERM: saving a checkpoint of step 1 before the run ends." in run.output
    assert job.complete_steps() == [1]


@pytest.mark.parametrize(
    ("processes", "numbers", "gap"),
    [
        (1, [signal.SIGINT, signal.SIGINT], 0.3),
        (1, [signal.SIGTERM, signal.SIGINT], 0.3),
        (2, [signal.SIGINT, signal.SIGINT], REPEAT_SECONDS + 1),
        (2, [signal.SIGTERM, signal.SIGINT], REPEAT_SECONDS + 1),
    ],
)
def test_a_ctrl_c_ends_a_run_within_a_long_operation_after_another_signal(
    job: FaultyJob, processes: int, numbers: list[signal.Signals], gap: float
) -> None:
    """A first one waits until PyTorch returns to Python, which may take minutes."""
    one = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    one |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    words, record = ["--job.config_file", str(job.write_toml())], job.folder / "record"
    entry = sabotage.multiplies_for_a_minute
    run = (
        Launched.start_rank(words, environment=one, record=record, entry=entry)
        if processes == 1
        else Launched.start(words, processes=processes, record=record, entry=entry)
    )
    begun = [Path(f"{record}_in_first_step_{rank}") for rank in range(processes)]
    wait_for(lambda: all(path.exists() for path in begun), run)
    assert run.process.pid is not None
    os.kill(run.process.pid, numbers[0])
    time.sleep(gap)
    assert run.is_alive()
    os.kill(run.process.pid, numbers[1])

    assert run.wait(9) == INTERRUPTED  # an agent would kill ranks after 10 s
    assert run.output.endswith(
        "ended by SIGINT. The same command resumes from the last checkpoint, if any.\n"
    )
    assert not list(Path(job.settings["job"]["dump_folder"]).glob(CLAIMS))


def test_a_signal_that_a_program_handles_for_itself_is_not_noted() -> None:
    """Python wakes the thread for it, too, even if it has no name."""
    stop = StopSignals()
    note(stop, signal.SIGRTMIN + 1, is_shown=True)

    assert (stop.received, stop.since) == ("", 0)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_signal_in_a_save_ends_the_run_with_that_checkpoint(
    job: FaultyJob, processes: int
) -> None:
    """It is not saved again."""
    job.settings["checkpoint"]["async_mode"] = "disabled"
    run = job.launch(processes=processes, entry=sabotage.saves_slowly)
    saves = Path(f"{job.records[-1]}_saves_0")
    wait_for(saves.exists, run)
    os.kill(job.pids()[processes - 1], signal.SIGUSR1)

    assert run.wait(TIMEOUT_S) == INTERRUPTED
    check_ended(job, run.output)
    assert "Received SIGUSR1: the run ends with the checkpoint of step 2." in run.output
    assert job.complete_steps() == [2]
    assert saves.read_text() == "1"
    assert max(job.steps_begun()) == 2


@pytest.mark.parametrize("processes", [1, 2])
def test_before_the_wall_time_ends_a_run_saves_and_ends(job: FaultyJob, processes: int) -> None:
    """Even after its first step."""
    job.settings["guards"] = {"wall_time_minutes": 0.01, "margin_seconds": 1}
    run = job.launch(processes=processes)

    assert run.wait(TIMEOUT_S) == INTERRUPTED
    check_ended(job, run.output)
    assert (
        "The wall time is about to end: saving a checkpoint of step 1 before the run ends."
        in run.output
    )
    assert job.complete_steps() == [1]


def test_without_checkpoints_the_log_says_so(job: FaultyJob) -> None:
    job.settings["checkpoint"] = {"enable": False}
    job.settings["guards"] = {"wall_time_minutes": 0}
    run = job.launch()

    assert run.wait(TIMEOUT_S) == INTERRUPTED
    assert "no checkpoint is saved, because checkpoint.enable = false." in run.output


def test_ranks_do_not_outlive_a_torchrun_that_is_killed(job: FaultyJob) -> None:
    """They are sent nothing. Started again, the run would write its checkpoints twice."""
    run = job.launch()
    wait_for(lambda: job.steps_begun(), run)
    run.process.kill()
    run.wait(TIMEOUT_S)

    job.wait_until_gone()
    assert max(job.steps_begun()) < 1000
