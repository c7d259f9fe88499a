"""The complete settings of a run as a TOML file, which gives the same settings when it is read."""

from collections.abc import Iterator
from itertools import count
from operator import attrgetter
from pathlib import Path

from blendtitan.run.values import toml_of
from blendtitan.storage.atomic_files import read_note, remove_file_partials, write_atomically
from blendtitan.titan.sections import SECTIONS
from blendtitan.titan.settings import Settings
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

FILE_NAME = "config.toml"
"""Name of the file in the run's ``job.dump_folder``."""

_HEAD = "# Every setting of this run, defaults included. It can be given to --job.config_file."


def resolved_toml(settings: Settings) -> str:
    """All sections and keys, with the values that the file, the command line or defaults gave."""
    return "\n\n".join([_HEAD, *_tables(settings)]) + "\n"


def write_resolved(settings: Settings) -> Path:
    """Write the settings into the run's folder, the whole file or none of it; its path.

    A file of this name that no run wrote, such as the one that the run was configured by, is kept
    under another name.
    """
    path = Path(settings.job.dump_folder) / FILE_NAME
    if path.is_file() and _HEAD not in read_note(path):
        _keep(path)
    write_text(path, resolved_toml(settings))
    return path


def _keep(path: Path) -> None:
    names = (path.with_name(f"{path.stem}.before-run-{n}{path.suffix}") for n in count(1))
    kept = next(name for name in names if not name.exists())
    path.rename(kept)
    logger.warning("%s was not written by a run. It is kept as %s.", path, kept.name)


def write_text(path: Path, text: str) -> None:
    """Write a file of the run's folder, the whole file or none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_file_partials(path)
    write_atomically(path, text.encode())


def _tables(settings: Settings) -> Iterator[str]:
    for name, section in SECTIONS.items():
        values = attrgetter(name)(settings)
        lines = [f"{key} = {toml_of(getattr(values, key))}" for key in section.keys]
        if lines:
            yield "\n".join([f"[{name}]", *lines])
