"""One run through TorchTitan 0.2.2, 0.3.0 and main: the same samples, and one state for all.

``./run_tests.sh --titan 0.2`` installs 0.2.2 into ``.venv-titan02``; ``TITAN02`` names another
folder.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from blendtitan.runs.checkpoints import stored_states
from tests.titan02.runs import STEPS, Ended, started
from tests.titan02.runs import SmallRun as SmallRun02
from tests.titan_main.runs import SmallRun

ROOT = Path(__file__).parents[2]
TITAN02 = Path(os.environ.get("TITAN02", ROOT / ".venv-titan02/0.2.2"))
PATHS = {"0.2.2": [str(TITAN02)], "0.3.0": [], "main": [os.environ.get("TITAN_MAIN", "")]}
"""What comes before ``src`` in PYTHONPATH."""

if not TITAN02.exists():
    pytest.skip(f"there is no TorchTitan 0.2.2 in {TITAN02}", allow_module_level=True)


def start(version: str, folder: Path, data: Path, record: str, **told: str) -> Ended:
    """Train with a version, to the end or to the death that is asked for."""
    folder.mkdir(exist_ok=True)
    toml = ["--job.config_file", str(SmallRun02(folder, data).toml()), "--debug.seed", "1"]
    command = {
        "0.2.2": ["-m", "tests.titan02.recorded_train", *toml],
        "0.3.0": ["-m", "tests.titan.recorded_train", *toml],
        "main": ["-m", "tests.titan_main.recorded_train", *SmallRun(folder, data).arguments()],
    }[version]
    path = os.pathsep.join([*PATHS[version], str(ROOT / "src"), str(ROOT)])
    return started(command, record=folder / record, PYTHONPATH=path, **told)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, data: Path) -> dict[str, Path]:
    """A run of each version that was killed in step 4; its checkpoint is that of step 2."""
    found = {version: tmp_path_factory.mktemp("version") / version for version in PATHS}
    for version, folder in found.items():
        ended = start(version, folder, data, "killed", DIE_AT="4")
        assert ended.code == -9, ended.output[-3000:]
    return found


def expected(data: Path, first: int, last: int = STEPS) -> dict[int, list[str]]:
    """Digests of the samples that the global order has for each step."""
    run = SmallRun02(data, data)
    return {step: run.expected_samples(step) for step in range(first, last + 1)}


def state_of(folder: Path) -> dict[str, Any]:
    """The loader's state in the checkpoint of step 2."""
    (stored,) = stored_states(folder / "out")
    assert stored.step == 2
    assert stored.state_dict is not None
    return stored.state_dict


@pytest.mark.parametrize("version", PATHS)
def test_a_killed_run_resumes_with_the_samples_of_the_global_order(
    version: str, folders: dict[str, Path], data: Path, tmp_path: Path
) -> None:
    """Every version reads the same samples in every step, before its death and after it.

    The first micro batch of step 4 was taken before the run was killed in it.
    """
    before = Ended(-9, "", folders[version] / "killed").samples()
    folder = tmp_path / "copy"
    shutil.copytree(folders[version], folder)
    after = start(version, folder, data, "resumed")

    assert after.code == 0, after.output[-3000:]
    assert set(before.pop(4)) <= set(expected(data, 4)[4])
    assert before == expected(data, 1, 3)
    assert after.samples() == expected(data, 3)


def test_all_versions_save_the_same_state(folders: dict[str, Path]) -> None:
    first, second, third = (state_of(folder) for folder in folders.values())

    assert first == second == third


@pytest.mark.parametrize(
    ("saved", "used"), [("0.2.2", "0.3.0"), ("0.3.0", "main"), ("main", "0.2.2")]
)
def test_a_state_of_one_version_continues_in_the_next(
    saved: str, used: str, folders: dict[str, Path], data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "state.json"
    path.write_text(json.dumps(state_of(folders[saved])))
    after = start(used, tmp_path / "run", data, "moved", LOADER_STATE=str(path))

    assert after.code == 0, after.output[-3000:]
    assert after.samples() == expected(data, 3)
