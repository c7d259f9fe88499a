"""Commands that work on one output at the same time, so that conflicting ones are refused.

Each command has a file in ``DIR/.blendtitan/.runs``. Its name holds what others must know, and
its content explains it. A command first writes its file, and then looks for those of others: of
two that start at once, at least one sees the other. Files of commands that have ended do not
count, so a killed command keeps no other one out.

ORDER-PROCESS.SETTINGS.INPUTS.TIER.PHASE.run
"""

import hashlib
import os
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, cast

import orjson

from blendtitan.errors import ConfigError
from blendtitan.files import DamagedFileError, read_json
from blendtitan.prepare.claims import LEASE_SECONDS, Heartbeat, Holder, Silence
from blendtitan.prepare.documents import Settings
from blendtitan.prepare.input_file import WORK_FOLDER, is_url
from blendtitan.prepare.plan import Shard
from blendtitan.storage.atomic_files import Process, write_atomically, writing
from blendtitan.tokenizers import TIERS, Tier
from blendtitan.visible import visible, visible_logger

logger = visible_logger(__name__)

RUNS_FOLDER = ".runs"

Phase = Literal["starting", "admitted"]
"""``starting``: may still be refused; ``admitted``: conflicting commands are refused."""

_SUFFIX = ".run"
_POLL_SECONDS = 0.1
_DIGEST_CHARS = 16

# A run's file lists its shards, with sixty bytes each.
_LIMIT_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a run's file, for the error messages of others."""

    holder: Holder
    tokenizer: str
    settings: Settings
    inputs: tuple[str, ...]

    shards: dict[str, str]
    """Digest of the source of each shard, by the digest of its prefix."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A run, as the name of its file describes it."""

    order: str
    """Time of its start. Of two runs that start at once, the first one stays."""

    process: str
    settings: str
    inputs: str
    tier: Tier
    phase: Phase

    @classmethod
    def of_name(cls, name: str) -> "Entry | None":
        """The run with a file of this name. None: it is another file."""
        parts = name.removesuffix(_SUFFIX).split(".")
        order, _, process = parts[0].partition("-")
        if not name.endswith(_SUFFIX) or len(parts) != 5 or Process.of_name(process) is None:
            return None
        _, settings, inputs, tier, phase = parts
        if tier not in TIERS or phase not in ("starting", "admitted"):
            return None
        return cls(order, process, settings, inputs, cast(Tier, tier), cast(Phase, phase))

    @property
    def name(self) -> str:
        """Name of its file."""
        described = (self.settings, self.inputs, self.tier, self.phase)
        return ".".join((f"{self.order}-{self.process}", *described)) + _SUFFIX


class Run:
    """This command, among those that work on the same output."""

    def __init__(self, output: Path, entry: Entry, content: Content) -> None:
        self._folder = output / WORK_FOLDER / RUNS_FOLDER
        self._output = output
        self._entry = entry
        self._content = content
        self._silence = Silence()
        self._heartbeat: Heartbeat | None = None

    @property
    def path(self) -> Path:
        """Its file. Its workers keep it fresh; if it is gone, the run must end."""
        return self._folder / self._entry.name

    @property
    def tier(self) -> Tier:
        """The tokenizer tier, which is ``reference`` beside runs that accept no other."""
        return self._entry.tier

    def give_up_fast_tier(self) -> None:
        """Use the reference tier from now on, and tell others."""
        self._rename(replace(self._entry, tier="reference"))

    @contextmanager
    def kept_fresh(self) -> Generator[None]:
        """A block in which this process itself shows that the run lives."""
        heartbeat = Heartbeat([self.path])
        self._heartbeat = heartbeat
        try:
            yield
        finally:
            self._heartbeat = None
            heartbeat.stop()

    def begin(self) -> None:
        """Write its file, and be admitted beside the existing runs.

        Raises:
            ConfigError: A run has other settings, or makes the same shard from another input.
        """
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, orjson.dumps(asdict(self._content)))
        told: set[str] = set()
        while rivals := [other for other in self._others() if self._conflict(other)]:
            for other in rivals:
                if self._is_silent(other):
                    if other.process not in told:
                        told.add(other.process)
                        described = self._described(other)
                        logger.info("waiting: %s has shown no sign of life", described)
                elif other.phase != "starting" or other.order < self._entry.order:
                    self._yield_to(other)
            # Later runs see this one, and end, or were admitted just before.
            time.sleep(_POLL_SECONDS)
        self._rename(replace(self._entry, phase="admitted"))

    def end(self) -> None:
        """Remove its file."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _yield_to(self, other: Entry) -> None:
        """Adopt the reference tier of an earlier run, or raise if another setting differs."""
        if self.tier == "auto" and other.tier == "reference":
            logger.info("tokenizer tier reference, as %s uses", self._described(other))
            self._rename(replace(self._entry, tier="reference"))
        if conflict := self._conflict(other):
            raise ConfigError(conflict)

    def _rename(self, entry: Entry) -> None:
        try:
            self.path.rename(self._folder / entry.name)
        except FileNotFoundError as error:
            raise ConfigError(was_removed(self.path)) from error
        self._entry = entry
        if self._heartbeat is not None:
            self._heartbeat.paths = {self.path}

    def _others(self) -> Iterator[Entry]:
        """Runs that may live. Files of runs that are known to have ended are removed."""
        for name in sorted(os.listdir(self._folder)):
            entry = Entry.of_name(name)
            if entry is None or entry.name == self._entry.name:
                continue
            process = Process.of_name(entry.process)
            if process is None or process.has_ended():
                with suppress(OSError):
                    (self._folder / name).unlink()
            else:
                yield entry

    def _conflict(self, other: Entry) -> str:
        """Why another run and this one cannot work at the same time, or an empty text."""
        where, ours = self._output, self._content
        if other.settings != self._entry.settings:
            theirs = self._content_of(other)
            found = described_settings(theirs.tokenizer, theirs.settings) if theirs else "others"
            return (
                f"{where}: {self._described(other)} makes shards there with {found}, and this "
                f"command would with {described_settings(ours.tokenizer, ours.settings)}. Choose "
                f"another --output, or wait until it has ended."
            )
        if (other.tier == "reference") != (self.tier == "reference"):
            return (
                f"{where}: {self._described(other)} makes shards there with the tokenizer tier "
                f"{other.tier!r}, and this command was asked for {self.tier!r}. Give all commands "
                f"that share an output the same --tokenizer-tier, or run one after the other."
            )
        theirs = None if other.inputs == self._entry.inputs else self._content_of(other)
        shared = ours.shards.keys() & (theirs.shards.keys() if theirs else ())
        if theirs is None or all(ours.shards[name] == theirs.shards[name] for name in shared):
            return ""
        return (
            f"{where}: {self._described(other)} makes shards of the same names there from "
            f"another input or key (its inputs: {', '.join(theirs.inputs[:3])}; of this command: "
            f"{', '.join(ours.inputs[:3])}). Choose another --output, or a subfolder "
            f"with --corpus."
        )

    def _is_silent(self, other: Entry) -> bool:
        """Whether a run of another machine seems to have ended, which takes a lease to know."""
        process = Process.of_name(other.process)
        if process is not None and process.is_local:
            return False
        path = self._folder / other.name
        try:
            # Both times come from clocks of this file system's machines, which nearly agree.
            os.utime(self.path)
            if self.path.stat().st_mtime - path.stat().st_mtime < LEASE_SECONDS:
                return False
            if self._silence.seconds(path) > LEASE_SECONDS:
                path.unlink(missing_ok=True)
        except FileNotFoundError:
            pass
        return True

    def _content_of(self, other: Entry) -> Content | None:
        # Its file may have been renamed or removed.
        with suppress(OSError, DamagedFileError):
            return read_json(self._folder / other.name, Content, limit_bytes=_LIMIT_BYTES)
        return None

    def _described(self, other: Entry) -> str:
        content, process = self._content_of(other), Process.of_name(other.process)
        pid = process.pid if process else other.process
        return f"process {pid} on {content.holder.host if content else 'a machine'}"


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
    """This command as one that works on ``output``, until the block ends.

    Raises:
        ConfigError: Another command works there with which this one cannot share it.
    """
    sources: dict[str, str] = {}
    for shard in shards:
        location = shard.input.location
        source = location if is_url(location) else os.path.abspath(location)
        name = _digest(str(shard.prefix.relative_to(output)))
        sources[name] = _digest([source, shard.key])
    entry = Entry(
        order=f"{time.time_ns():020d}",
        process=Process.current().name,
        settings=_digest(settings.described()),
        inputs=_digest(sources),
        tier=tier,
        phase="starting",
    )
    # For people to read; paths need not be UTF-8.
    shown, named = visible(str(tokenizer)), tuple(visible(str(given)) for given in inputs)
    run = Run(output, entry, Content(Holder.current(), shown, settings, named, sources))
    try:
        run.begin()
        yield run
    finally:
        run.end()


def described_settings(tokenizer: str, settings: Settings) -> str:
    """Settings as error messages show them."""
    values = settings.described()
    values["tokenizer"] = f"{tokenizer} ({settings.tokenizer[:_DIGEST_CHARS]})".strip()
    return ", ".join(f"{name} {value}" for name, value in values.items())


def was_removed(path: Path) -> str:
    """The message when the file of a run is gone while the run works."""
    return (
        f"{path}: was removed while this command was working, so another one may have begun to "
        f"write the same shards. Run again."
    )


def _digest(value: str | list[str] | Mapping[str, object]) -> str:
    data = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(data).hexdigest()[:_DIGEST_CHARS]
