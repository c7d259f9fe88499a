"""The peer and the tokenizer files, each installed from PyPI into an environment of its own."""

import subprocess
import sys
import venv
from pathlib import Path

PEER = ("datatrove==0.10.1", "tokenizers", "orjson")
VOCABULARIES = ("mistral-common==1.13.1",)


def install(work: Path) -> dict[str, Path]:
    """Interpreters of ``ours`` (the one running this), the ``peer`` and the ``vocabularies``."""
    return {
        "ours": Path(sys.executable),
        "peer": _environment(work / "peer", PEER),
        "vocabularies": _environment(work / "vocabularies", ("--no-deps", *VOCABULARIES)),
    }


def versions(python: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Versions of installed packages, as the environment of ``python`` tells them."""
    script = (
        "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    )
    found = subprocess.run(
        [python, "-c", script, *names], check=True, capture_output=True, text=True
    )
    return dict(zip(names, found.stdout.split(), strict=True))


def _environment(folder: Path, packages: tuple[str, ...]) -> Path:
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        (folder / "complete").touch()
    return python
