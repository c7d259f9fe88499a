"""Commands that work on one output at the same time.

A run is a command. Each has a file in ``DIR/.blendtitan/.runs`` named TIME-PROCESS.run: a line that
describes it, and a line with its shards. A command first writes its file, and then looks for other
files, so if two conflicting commands start at once, at least one sees the other. Files of commands
that have ended do not count, so a killed command blocks no other.
"""

import hashlib
import os
import socket
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import orjson

from blendtitan.errors import ConfigError
from blendtitan.files import DamagedFileError, open_file
from blendtitan.identity import SHOWN_HASH
from blendtitan.json_files import LIMIT_BYTES, parse_json
from blendtitan.prepare.claims import LEASE_SECONDS, Heartbeat, Silence
from blendtitan.prepare.documents import Settings
from blendtitan.prepare.input_file import is_url, work_folder
from blendtitan.prepare.plan import Shard
from blendtitan.storage.atomic_files import (
    Process,
    remove_file_partials,
    write_atomically,
    writing,
)
from blendtitan.tokenizers import Tier
from blendtitan.visible import visible, visible_logger

logger = visible_logger(__name__)

RUNS_FOLDER = ".runs"

_SUFFIX = ".run"
_POLL_SECONDS = 0.1
_DIGEST_CHARS = 16
_SHOWN_INPUTS = 3

# The shards of a run take sixty bytes each.
_MOST_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class Entry:
    """The facts about a run that other runs need."""

    host: str
    tokenizer: str
    settings: Settings

    inputs: tuple[str, ...]
    """The first inputs, for messages."""

    sources: str
    """Digest of all its shards and their inputs."""

    tier: Tier

    is_admitted: bool = False
    """Whether it is accepted; conflicting commands are then refused."""


class Other(NamedTuple):
    """Another run, which may be alive."""

    path: Path
    """Its name begins with the start time: of two simultaneous runs, the first stays."""

    process: Process
    entry: Entry

    def __str__(self) -> str:
        return f"process {self.process.pid} on {self.entry.host}"


class Run:
    """This command among those that work on the same output."""

    def __init__(self, output: Path, entry: Entry, shards: Mapping[str, str]) -> None:
        name = f"{time.time_ns():020d}-{Process.current().name}{_SUFFIX}"
        self.path = work_folder(output) / RUNS_FOLDER / name
        """Its file. Its workers keep it fresh; if it is removed, the run must end."""
        self._output = output
        self._entry = entry
        self._shards = shards
        self._silence = Silence()

    @property
    def tier(self) -> Tier:
        """The tokenizer tier, which is ``reference`` beside runs that accept no other."""
        return self._entry.tier

    def give_up_fast_tier(self) -> None:
        """Use the reference tier from now on, and record it for other runs."""
        if not self.path.exists():
            raise ConfigError(was_removed(self.path))
        self._write(replace(self._entry, tier="reference"))

    @contextmanager
    def kept_fresh(self) -> Generator[None]:
        """Keep the run's file fresh from this process until the block ends."""
        heartbeat = Heartbeat([self.path])
        try:
            yield
        finally:
            heartbeat.stop()

    def begin(self) -> None:
        """Register beside the existing runs, or raise a ``ConfigError``."""
        with writing(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        for partial in self.path.parent.glob("*.partial-*"):
            remove_file_partials(partial.with_name(partial.name.partition(".partial-")[0]))
        self._write(self._entry)
        reported: set[Path] = set()
        while rivals := [other for other in self._others() if self._conflict(other)]:
            for other in rivals:
                if self._is_silent(other):
                    if other.path not in reported:
                        reported.add(other.path)
                        logger.info("waiting to see whether %s is still running", other)
                elif other.entry.is_admitted or other.path < self.path:
                    self._yield_to(other)
            # Later runs see this one, and end, or were admitted just before.
            time.sleep(_POLL_SECONDS)
        self._write(replace(self._entry, is_admitted=True))

    def end(self) -> None:
        """Remove its file."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _write(self, entry: Entry) -> None:
        self._entry = entry
        lines = [orjson.dumps(asdict(entry)), orjson.dumps(self._shards)]
        write_atomically(self.path, b"\n".join(lines))

    def _yield_to(self, other: Other) -> None:
        """Adopt the reference tier of an earlier run, or raise if another setting differs."""
        if self.tier == "auto" and other.entry.tier == "reference":
            logger.info("using the reference tokenizer tier, because %s does", other)
            self._write(replace(self._entry, tier="reference"))
        if conflict := self._conflict(other):
            raise ConfigError(conflict)

    def _others(self) -> Iterator[Other]:
        """Runs that may be alive. Removes the files of runs that have ended."""
        for path in sorted(self.path.parent.glob(f"*{_SUFFIX}")):
            process = Process.of_name(path.stem.partition("-")[2])
            if path == self.path or process is None:
                continue
            with suppress(OSError, DamagedFileError):
                if process.has_ended():
                    path.unlink()
                else:
                    with open_file(path) as file:
                        entry = parse_json(file.readline(LIMIT_BYTES), Entry)
                    yield Other(path, process, entry)

    def _conflict(self, other: Other) -> str:
        """The conflict between another run and this one; empty if there is none."""
        ours, theirs, where = self._entry, other.entry, f"{self._output}: {other} makes shards"
        if theirs.settings != ours.settings:
            return (
                f"{where} there with {described_settings(theirs.tokenizer, theirs.settings)}, but "
                f"this command uses {described_settings(ours.tokenizer, ours.settings)}. "
                f"Wait until it has ended, or use another folder."
            )
        if (theirs.tier == "reference") != (ours.tier == "reference"):
            return (
                f"{where} there with the tokenizer tier {theirs.tier!r}, but this command has "
                f"{ours.tier!r}. Use one tier in all commands that share an output folder, or wait "
                f"until it has ended."
            )
        if theirs.sources == ours.sources or not self._shares_a_shard(other):
            return ""
        return (
            f"{where} of the same names there from another input, key or --keep (its inputs: "
            f"{', '.join(theirs.inputs)}; of this command: {', '.join(ours.inputs)}). Choose "
            f"another output folder or corpus."
        )

    def _shares_a_shard(self, other: Other) -> bool:
        """Whether both would make one shard from different inputs, keys or fields."""
        with suppress(OSError, DamagedFileError), open_file(other.path) as file:
            file.readline(LIMIT_BYTES)
            theirs = parse_json(file.read(_MOST_BYTES), dict[str, str])
            shared = self._shards.keys() & theirs.keys()
            return any(self._shards[name] != theirs[name] for name in shared)
        return False

    def _is_silent(self, other: Other) -> bool:
        """Whether a run of another machine was silent for a lease, so it has probably ended."""
        if other.process.is_local:
            return False
        with suppress(FileNotFoundError):
            # Both times come from clocks of this file system's machines, which nearly agree.
            os.utime(self.path)
            if self.path.stat().st_mtime - other.path.stat().st_mtime < LEASE_SECONDS:
                return False
            if self._silence.seconds(other.path) > LEASE_SECONDS:
                other.path.unlink(missing_ok=True)
        return True


@contextmanager
def registered_run(
    shards: Sequence[Shard],
    output: Path,
    *,
    tokenizer: Path,
    settings: Settings,
    inputs: Iterable[str | Path],
    tier: Tier,
) -> Generator[Run]:
    """Register this command as working on ``output`` until the block ends.

    Raises:
        ConfigError: Another command works there, and cannot share the output.
    """
    sources: dict[str, str] = {}
    for shard in shards:
        location = shard.input.location
        source = location if is_url(location) else os.path.abspath(location)
        name = _digest(str(shard.prefix.relative_to(output)))
        sources[name] = _digest([source, shard.key, *shard.options.keep])
    # For people to read; paths need not be UTF-8.
    named = tuple(visible(str(given)) for given in list(inputs)[:_SHOWN_INPUTS])
    shown = visible(str(tokenizer))
    run = Run(
        output, Entry(socket.gethostname(), shown, settings, named, _digest(sources), tier), sources
    )
    try:
        run.begin()
        yield run
    finally:
        run.end()


def described_settings(tokenizer: str, settings: Settings, *, hash: str = "") -> str:
    """Settings in words, for errors.

    ``hash`` is that of the tokenizer's identity. Without it, the hash of the settings is shown,
    which also depends on tokens that change no ids.
    """
    values = settings.described()
    digest = (hash or settings.tokenizer).rpartition(":")[2][:SHOWN_HASH]
    values["tokenizer"] = f"{tokenizer} (hash {digest})".strip()
    return ", ".join(f"{name} {value}" for name, value in values.items())


def was_removed(path: Path) -> str:
    """The message for a run whose file was removed while it works."""
    return (
        f"{path}: was removed while this command was working, so another one may have begun to "
        f"write the same shards. Run again."
    )


def _digest(value: str | list[str] | Mapping[str, str]) -> str:
    data = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(data).hexdigest()[:_DIGEST_CHARS]
