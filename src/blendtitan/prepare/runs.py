"""Which commands are at work on an output, so that those whose settings differ are refused.

Each has a file in ``DIR/.blendtitan/.runs``, whose name says what others must know and whose
content explains it. A command first writes its file, and then looks for those of others: of two
that start at once, at least one sees the other. Files of commands that have ended count for
nothing, so a command that was killed keeps no other one out.

ORDER-PROCESS.SETTINGS.INPUTS.TIER.PHASE.run
"""

import hashlib
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
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
from blendtitan.tokenizers import Encoder, Tier
from blendtitan.visible import visible, visible_logger

logger = visible_logger(__name__)

RUNS_FOLDER = ".runs"

Phase = Literal["starting", "admitted", "working"]
"""``starting``: may still be refused; ``admitted``: others are refused; ``working``: also keeps
its tier."""

_UNDECIDED = "undecided"
_SUFFIX = ".run"
_POLL_SECONDS = 0.1
_DIGEST_CHARS = 16

# Of what a run's file holds: its shards, sixty bytes each.
_LIMIT_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class Content:
    """What the file of a run holds, for the errors of others."""

    holder: Holder
    tokenizer: str
    settings: Settings
    inputs: tuple[str, ...]

    shards: dict[str, str]
    """Digest of what each shard is made from, by the digest of its prefix."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A run as its file's name describes it."""

    order: str
    """Sorts runs by the time of their start; of two that start at once, the first stays."""

    process: str
    settings: str
    inputs: str
    tier: str
    phase: Phase

    @classmethod
    def of_name(cls, name: str) -> "Entry | None":
        """The run that a file of this name stands for. None: it is another file."""
        parts = name.removesuffix(_SUFFIX).split(".")
        order, _, process = parts[0].partition("-")
        if not name.endswith(_SUFFIX) or len(parts) != 5 or Process.of_name(process) is None:
            return None
        if parts[4] not in ("starting", "admitted", "working"):
            return None
        _, settings, inputs, tier, phase = parts
        return cls(order, process, settings, inputs, tier, cast(Phase, phase))

    @property
    def name(self) -> str:
        """Name of its file."""
        described = (self.settings, self.inputs, self.tier, self.phase)
        return ".".join((f"{self.order}-{self.process}", *described)) + _SUFFIX


class Run:
    """This command, among those that are at work on the same output."""

    def __init__(self, output: Path, entry: Entry, content: Content) -> None:
        self._folder = output / WORK_FOLDER / RUNS_FOLDER
        self._output = output
        self._entry = entry
        self._content = content
        self._silence = Silence()
        self._heartbeat: Heartbeat | None = None
        self._told: set[str] = set()

    @property
    def path(self) -> Path:
        """Its file. Whoever works for the run keeps it fresh; without it, the run must end."""
        return self._folder / self._entry.name

    def use_tier(self, tier: Tier, build: Callable[[Tier], Encoder]) -> Encoder:
        """The encoder of the tier on which all living runs of this output agree.

        The first run decides; the others do as it does.

        Args:
            tier: What was asked for.
            build: Builds an encoder of a tier.

        Raises:
            ConfigError: The tier of the others cannot be used here, or another was asked for.
        """
        leader = self._leader(wait_for_all=tier == "reference")
        if leader is None or leader.tier == tier == "reference":
            encoder = build(tier)
            self._decide(encoder.tier)
            leader = self._rival()
            if leader is not None:
                encoder = self._following(leader, tier, build)
        else:
            encoder = self._following(leader, tier, build)
        self._decide(encoder.tier, phase="working")
        return encoder

    def give_up_fast_tier(self) -> None:
        """Tell the others that this run makes everything with the reference tier from now on."""
        self._decide("reference")

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
        """Write its file, and be admitted beside the runs that are there.

        Raises:
            ConfigError: One of them has other settings, or makes the same shard from another input.
        """
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, orjson.dumps(asdict(self._content)))
        while rivals := [other for other in self._others() if self._conflict(other)]:
            for other in rivals:
                if self._is_silent(other):
                    self._wait_for(other, "has given no sign of life")
                elif other.phase != "starting" or other.order < self._entry.order:
                    raise ConfigError(self._conflict(other))
            # Those that started later see this run, and end, or were admitted just before.
            time.sleep(_POLL_SECONDS)
        self._rename(replace(self._entry, phase="admitted"))

    def end(self) -> None:
        """Remove its file."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _leader(self, *, wait_for_all: bool) -> Entry | None:
        """A living run that has decided on a tier, after those before this one have decided."""
        while True:
            peers = [other for other in self._others() if not self._is_silent(other)]
            undecided = [
                other
                for other in peers
                if other.tier == _UNDECIDED
                and (
                    wait_for_all or (other.phase != "starting" and other.order < self._entry.order)
                )
            ]
            decided = [other for other in peers if other.tier != _UNDECIDED]
            if decided and not (wait_for_all and undecided):
                # A fast one that is not at work yet may still see that this run takes no other.
                open_ = [other for other in decided if wait_for_all and _may_change(other)]
                if not open_:
                    return max(decided, key=lambda other: (other.tier == "fast", other.name))
            elif not undecided:
                return None
            for other in undecided:
                self._wait_for(other, "decides on the tokenizer tier")
            time.sleep(_POLL_SECONDS)

    def _rival(self) -> Entry | None:
        """A living run that chose the reference tier while this one chose the fast tier."""
        if self._entry.tier != "fast":
            return None
        peers = (other for other in self._others() if not self._is_silent(other))
        return next((other for other in peers if other.tier == "reference"), None)

    def _following(self, leader: Entry, tier: Tier, build: Callable[[Tier], Encoder]) -> Encoder:
        if tier not in ("auto", leader.tier):
            raise ConfigError(
                f"{self._output}: {self._described(leader)} makes shards there with the tokenizer "
                f"tier {leader.tier!r}, and this command was asked for {tier!r}. Give all commands "
                f"that share an output the same --tokenizer-tier, or run one after the other."
            )
        logger.info("tokenizer tier %s, as %s uses", leader.tier, self._described(leader))
        try:
            return build(cast(Tier, leader.tier))
        except ConfigError as error:
            raise ConfigError(
                f"{error} It is needed here, because {self._described(leader)} makes shards in "
                f"{self._output} with the tier {leader.tier!r}, and all commands that share an "
                f"output use one tier. Make it available on this machine, or run all of them with "
                f"--tokenizer-tier reference."
            ) from error

    def _decide(self, tier: Tier, phase: Phase | None = None) -> None:
        self._rename(replace(self._entry, tier=tier, phase=phase or self._entry.phase))

    def _rename(self, entry: Entry) -> None:
        try:
            self.path.rename(self._folder / entry.name)
        except FileNotFoundError as error:
            raise ConfigError(was_removed(self.path)) from error
        self._entry = entry
        if self._heartbeat is not None:
            self._heartbeat.paths = {self.path}

    def _others(self) -> Iterator[Entry]:
        """Runs that may live; files of those that are known to have ended are removed."""
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
        """Why another run and this one cannot work at the same time; empty where they can."""
        if other.settings != self._entry.settings:
            return (
                f"{self._output}: {self._described(other)} makes shards there with "
                f"{self._settings_of(other)}, and this command would with "
                f"{described_settings(self._content.tokenizer, self._content.settings)}. Choose "
                f"another --output, or wait until it has ended."
            )
        if other.inputs == self._entry.inputs:
            return ""
        theirs = self._content_of(other)
        ours = self._content.shards
        shared = ours.keys() & (theirs.shards.keys() if theirs else ())
        if theirs is None or all(ours[prefix] == theirs.shards[prefix] for prefix in shared):
            return ""
        return (
            f"{self._output}: {self._described(other)} makes shards of the same names there from "
            f"another input or key (its inputs: {', '.join(theirs.inputs[:3])}; of this command: "
            f"{', '.join(self._content.inputs[:3])}). Choose another --output, or a subfolder "
            f"with --corpus."
        )

    def _is_silent(self, other: Entry) -> bool:
        """Whether a run of another machine seems to have ended, which takes a lease to know."""
        process = Process.of_name(other.process)
        if process is not None and process.is_local:
            return False
        path = self._folder / other.name
        try:
            # Both times are from the clocks of this file system's machines, which nearly agree.
            os.utime(self.path)
            if self.path.stat().st_mtime - path.stat().st_mtime < LEASE_SECONDS:
                return False
            if self._silence.seconds(path) > LEASE_SECONDS:
                path.unlink(missing_ok=True)
        except FileNotFoundError:
            pass
        return True

    def _wait_for(self, other: Entry, what: str) -> None:
        if f"{other.process} {what}" not in self._told:
            self._told.add(f"{other.process} {what}")
            logger.info("waiting: %s %s", self._described(other), what)

    def _content_of(self, other: Entry) -> Content | None:
        # Its file may just have another name, or none.
        with suppress(OSError, DamagedFileError):
            return read_json(self._folder / other.name, Content, limit_bytes=_LIMIT_BYTES)
        return None

    def _described(self, other: Entry) -> str:
        content, process = self._content_of(other), Process.of_name(other.process)
        pid = process.pid if process else other.process
        return f"process {pid} on {content.holder.host if content else 'a machine'}"

    def _settings_of(self, other: Entry) -> str:
        content = self._content_of(other)
        return described_settings(content.tokenizer, content.settings) if content else "others"


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
    """This command as one of those at work on ``output``, until the block ends.

    Raises:
        ConfigError: Another command is at work there with which this one cannot share it.
    """
    sources = dict(_sources(shards, output))
    process = Process.current()
    entry = Entry(
        order=f"{time.time_ns():020d}",
        process=process.name,
        settings=_digest(settings.described()),
        inputs=_digest(sources),
        tier="reference" if tier == "reference" else _UNDECIDED,
        phase="starting",
    )
    # For people to read; paths need not be UTF-8.
    shown, named = visible(str(tokenizer)), tuple(visible(str(given)) for given in inputs)
    content = Content(Holder.current(), shown, settings, named, sources)
    run = Run(output, entry, content)
    try:
        run.begin()
        yield run
    finally:
        run.end()


def described_settings(tokenizer: str, settings: Settings) -> str:
    """Settings as errors show them."""
    values = settings.described()
    values["tokenizer"] = f"{tokenizer} ({settings.tokenizer[:_DIGEST_CHARS]})".strip()
    return ", ".join(f"{name} {value}" for name, value in values.items())


def was_removed(path: Path) -> str:
    """What to say when the file of a run is gone while the run works."""
    return (
        f"{path}: was removed while this command was at work, so another one may have begun to "
        f"write the same shards. Run again."
    )


def _may_change(other: Entry) -> bool:
    return other.tier == "fast" and other.phase != "working"


def _sources(shards: Sequence[Shard], output: Path) -> Iterator[tuple[str, str]]:
    for shard in shards:
        location = shard.input.location
        source = location if is_url(location) else os.path.abspath(location)
        yield _digest(str(shard.prefix.relative_to(output))), _digest([source, shard.key])


def _digest(value: str | list[str] | Mapping[str, object]) -> str:
    data = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(data).hexdigest()[:_DIGEST_CHARS]
