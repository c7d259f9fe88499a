"""An environment of its own for the peers, and for ours while it is measured beside them."""

import os
import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path

import blendtitan

HERE = Path(__file__).parent
TORCH = "torch==2.13.0"
PACKAGES = (
    *("torch", "numpy", "megatron-core", "litdata", "ai2-olmo-core", "mosaicml-streaming"),
    *("torchtitan", "tokenizers"),
)


def install(work: Path) -> Path:
    """The interpreter of an environment that holds all peers. An interrupted one is completed.

    Raises:
        RuntimeError: The index that pip uses has no CPU build of torch. Point it at one that has.
    """
    folder = work / "venv"
    python = folder / "bin" / "python"
    if (folder / "complete").exists():
        return python
    if not python.exists():
        venv.create(folder, with_pip=True)
    pip = [python, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, TORCH], check=True)
    torch_version = versions(python, ("torch",))["torch"]
    if not torch_version.endswith("+cpu"):
        raise RuntimeError(
            f"{folder}: found torch {torch_version}, expected its CPU build. Point pip at an index "
            f"that has it, for example with PIP_INDEX_URL, and delete the folder."
        )
    # Nothing that the peers need may replace it.
    constraints = work / "constraints.txt"
    constraints.write_text(f"torch=={torch_version}\n")
    subprocess.run([*pip, "-c", constraints, "-r", HERE / "requirements.txt"], check=True)
    alone = ["--no-deps", "--ignore-requires-python", "-r", HERE / "requirements_no_deps.txt"]
    subprocess.run([*pip, *alone], check=True)
    (folder / "complete").touch()
    return python


def versions(python: Path, names: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Versions of installed packages, as the environment of ``python`` tells them."""
    script = (
        "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    )
    found = subprocess.run(
        [python, "-c", script, *names], check=True, capture_output=True, text=True
    )
    return dict(zip(names, found.stdout.split(), strict=True))


def own_version() -> str:
    """Version of this project, and the commit where it is a checkout."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True
    ).stdout.strip()
    return f"{version('blendtitan')} ({commit or 'no checkout'})"


def environment() -> dict[str, str]:
    """Environment of a measuring process: it finds our source, and no peer asks the network."""
    source = Path(blendtitan.__file__).parents[1]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "WANDB_MODE": "disabled"}
    return os.environ | offline | {"PYTHONPATH": str(source), "PYTHONWARNINGS": "ignore"}


def current() -> Path:
    """The interpreter that runs this: enough for ours and the limits."""
    return Path(sys.executable)
