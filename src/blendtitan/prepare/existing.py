"""Existing shards of an output: those that may be replaced, and those whose input is gone.

A shard belongs to this project if it has a record, or if its parts show that it is being put in
place. Any other file of the same name was made by another program, and is only replaced with
``--overwrite``.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from blendtitan.errors import ConfigError, ShardError
from blendtitan.files import DamagedFileError, path_of, url_of
from blendtitan.identity import TokenizerIdentity
from blendtitan.json_files import read_json
from blendtitan.prepare.documents import Counts, Manifest, Settings
from blendtitan.prepare.input_file import (
    REJECTS_SUFFIX,
    file_system,
    format_of,
    is_url,
    path_in_url,
    readable,
)
from blendtitan.prepare.inputs import WILDCARDS
from blendtitan.prepare.plan import Shard, stored_record
from blendtitan.prepare.records import (
    Record,
    load_record,
    read_record,
    record_paths,
    remove_file,
    remove_output,
)
from blendtitan.prepare.runs import described_settings
from blendtitan.storage.list_forms import corpus_in_folder
from blendtitan.storage.reader import ShardIndex
from blendtitan.storage.record_files import read_record as read_tokenizer_record
from blendtitan.storage.records import ENDS_SUFFIX
from blendtitan.storage.writer import SHARD_SUFFIXES
from blendtitan.visible import counted, visible_logger

logger = visible_logger(__name__)

_ELSEWHERE = "Replace the shards with --overwrite, or keep them and use another folder."


def check_replaceable(shard: Shard, settings: Settings, tokenizer: Path) -> None:
    """Check that writing a shard replaces only its own earlier version, of the same settings.

    Raises:
        ConfigError: The shard, or files of its names, were made by another program, with another
            key, or from another input.
    """
    try:
        record = load_record(shard.record_path)
    except DamagedFileError as error:
        logger.warning("%s. The shard is rebuilt.", error)
        return
    if record is None:
        _check_unrecorded(shard)
    elif record.has_shard(shard.prefix):
        _check_recorded(shard, record)
    elif not shard.placing_path.exists() and _is_shard(shard.prefix):
        raise ConfigError(
            f"{shard.prefix}: another program replaced the shard that {shard.record_path} "
            f"describes. Replace it with --overwrite, or use another folder."
        )
    _check_parts(shard, settings, tokenizer)


def check_settings(
    output: Path,
    shards: Collection[Shard],
    settings: Settings,
    *,
    tokenizer: Path,
    identity: TokenizerIdentity,
    overwrite: bool,
) -> None:
    """Check that all shards of ``output``, of this command or not, have its settings.

    Raises:
        ConfigError: A shard has other settings, and ``overwrite`` is not set.
    """
    own = {shard.record_path for shard in shards}
    paths = dict(record_paths(output))
    differing = {
        prefix: record
        for prefix, path in paths.items()
        if not (overwrite and path in own)
        if (record := _readable_record(path)) is not None and record.settings != settings
        if record.has_shard(prefix) and record.counts.documents
    }
    if not differing:
        return
    prefix, record = next(iter(differing.items()))
    made, asked = _both_described(prefix, record, settings, tokenizer, identity)
    more = len(differing) - 1
    which = f"{prefix} and {counted(more, 'more shard')} were" if more else f"{prefix}: was"
    found = f"{which} made with {made}, but this command uses {asked}."
    kept = [prefix for prefix in differing if paths[prefix] not in own]
    if overwrite:
        logger.warning(
            "%s This command does not make the shards of %s, which stay unchanged: tokenise them "
            "again as well, or delete them.",
            *(found, _corpora(kept, output)),
        )
        return
    remedy = _ELSEWHERE
    if kept:
        replaced = [prefix for prefix in differing if prefix not in kept]
        remedy = (
            f"All shards of an output must have one tokenizer, and this command does not make "
            f"those of {_corpora(kept, output)}: delete them, or keep them unchanged with "
            f"--overwrite"
        )
        if replaced:
            remedy += f", which replaces those of {_corpora(replaced, output)}"
        remedy += ". Or use another folder."
    raise ConfigError(f"{found} {remedy}")


def _corpora(prefixes: Iterable[Path], output: Path) -> str:
    names = {repr(corpus_in_folder(prefix, output)) for prefix in prefixes}
    return f"{'corpus' if len(names) == 1 else 'corpora'} {', '.join(sorted(names))}"


def _check_unrecorded(shard: Shard) -> None:
    # Made by another release, or being put in place.
    if os.path.lexists(shard.record_path) or shard.placing_path.exists():
        return
    # `verify` writes the record of document ends beside any shard, so it does not show who made
    # the shard, and it may be left over from a deleted one.
    paths = [path_of(f"{shard.prefix}{s}") for s in SHARD_SUFFIXES if s != ENDS_SUFFIX]
    if not shard.parts_folder.exists():
        paths.append(path_of(f"{shard.prefix}{REJECTS_SUFFIX}"))
    for path in _existing(paths):
        raise ConfigError(
            f"{path}: exists already, and was not made by `blendtitan tokenize` in this folder. "
            f"Move it away, replace it with --overwrite, or use another folder."
        )


def _existing(paths: Sequence[Path]) -> list[Path]:
    """Those of some files of one folder that exist."""
    if not url_of(paths[0]):
        return [path for path in paths if os.path.lexists(path)]
    from blendtitan.remote import find

    find([str(path) for path in paths])  # with one request
    return [path for path in paths if path.exists()]


def _check_recorded(shard: Shard, record: Record) -> None:
    if record.key != shard.key:
        raise ConfigError(
            f"{shard.prefix}: was made from key {record.key!r}, but this command uses key "
            f"{shard.key!r}. {_ELSEWHERE}"
        )
    made, asked = _txt_mode(record.source), _txt_mode(shard.source)
    if made and asked and made != asked:
        raise ConfigError(
            f"{shard.prefix}: was made with --txt {made}, but this command uses --txt {asked}. "
            f"Give --txt {made}, replace the shards with --overwrite, or use another folder."
        )
    source = str(record.source.get("input", ""))
    if _is_another_input(source, shard.input.location):
        raise ConfigError(
            f"{shard.prefix}: was made from {source}, but this command would replace it with a "
            f"shard of {shard.input.location}. Replace it with --overwrite, or use another folder "
            f"or corpus."
        )


def _check_parts(shard: Shard, settings: Settings, tokenizer: Path) -> None:
    """Check that no unfinished work of other settings would be lost."""
    wanted = settings.described()
    for path in shard.parts_folder.glob("*.json"):
        with suppress(OSError, DamagedFileError):
            found = Manifest.of(read_json(path, dict)).identity
            of_parts = {name: found[name] for name in wanted if name in found}
            if any(wanted[name] != value for name, value in of_parts.items()):
                raise ConfigError(
                    f"{shard.parts_folder}: holds unfinished work with {of_parts}, but this "
                    f"command uses {described_settings(str(tokenizer), settings)}. Finish it with "
                    f"the same settings, discard it with --overwrite, or use another folder."
                )
        return


def _both_described(
    prefix: Path, record: Record, settings: Settings, tokenizer: Path, identity: TokenizerIdentity
) -> tuple[str, str]:
    """The settings of a shard, with its tokenizer if that is recorded, and those of the command."""
    found = None
    with suppress(ShardError):
        found = read_tokenizer_record(prefix)
    name, made, asked = "", "", ""
    if found is not None:
        name = found.tokenizer.name
        # Tokens such as padding change the settings, but not the identity.
        is_shown = found.tokenizer.hash != identity.hash or record.settings.tokenizer == (
            settings.tokenizer
        )
        if is_shown:
            made, asked = found.tokenizer.hash, identity.hash
    return (
        described_settings(name, record.settings, hash=made),
        described_settings(str(tokenizer), settings, hash=asked),
    )


def _txt_mode(source: Mapping[str, object]) -> str:
    """The --txt mode of a .txt file; empty for any other file."""
    found = format_of(PurePosixPath(path_in_url(str(source.get("input", "")))).name)
    return str(source.get("txt", "file")) if found and found.kind == "text" else ""


def _is_another_input(recorded: str, location: str) -> bool:
    """Whether a shard's input is a different file that still exists, not a moved file."""
    if recorded == location:
        return False
    if is_url(recorded) or is_url(location):
        return is_url(recorded) or os.path.exists(recorded)
    with suppress(OSError, ValueError):
        return not os.path.samefile(recorded, location)
    return False


def _is_shard(prefix: Path) -> bool:
    try:
        ShardIndex.open(prefix)
    except (ShardError, OSError):
        return False
    return True


def _readable_record(path: Path) -> Record | None:
    try:
        return load_record(path)
    except DamagedFileError as error:
        logger.warning(
            "%s. Its shard is not listed in the catalog: tokenise its input again.", error
        )
        return None


@dataclass(frozen=True, slots=True)
class RemovedInput:
    """An input that was removed, or is no longer named, and its remaining shard."""

    location: str
    prefix: Path
    record_path: Path
    counts: Counts
    stored_record: str = ""
    """URL of the copy of its record. Empty: the output is local."""

    def delete_shard(self) -> None:
        """Delete the shard and everything that belongs to it; the record last."""
        remove_output(self.prefix)
        remove_file(path_of(f"{self.prefix}{REJECTS_SUFFIX}"))
        if self.stored_record:
            remove_file(path_of(self.stored_record))
        self.record_path.unlink(missing_ok=True)


def removed_inputs(
    output: Path, inputs: Sequence[str | Path], planned: Iterable[Path]
) -> Iterator[RemovedInput]:
    """Removed inputs below ``inputs`` whose shards still exist.

    Several commands may fill one output. So a shard counts only if its input was below one of
    the inputs of this command.
    """
    for left in unplanned_inputs(output, planned):
        is_covered = any(_covers(str(given), left.location) for given in inputs)
        if is_covered and not _exists(left.location):
            yield left


def unplanned_inputs(output: Path, planned: Iterable[Path]) -> Iterator[RemovedInput]:
    """Inputs of shards of ``output`` that have a record and are not planned."""
    kept = set(planned)
    for prefix, path in record_paths(output):
        record = None if prefix in kept else read_record(prefix, path)
        if record is not None:
            location, stored = str(record.source["input"]), stored_record(output, path)
            yield RemovedInput(location, prefix, path, record.counts, stored)


def _covers(given: str, location: str) -> bool:
    """Whether a file would have been found at ``given``."""
    if is_url(given) != is_url(location):
        return False
    path = given if is_url(given) else os.path.abspath(given)
    if WILDCARDS.isdisjoint(path) or os.path.isdir(path):
        return location.startswith(f"{path.rstrip('/')}/")
    return _matches(location.split("/"), path.split("/"))


def _matches(parts: list[str], pattern: list[str]) -> bool:
    """Whether a path, or a folder above it, matches a pattern."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(_matches(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    is_first = bool(parts) and fnmatchcase(parts[0], pattern[0])
    return is_first and _matches(parts[1:], pattern[1:])


def _exists(location: str) -> bool:
    if not is_url(location):
        return os.path.lexists(location)
    with readable(location):
        files, path = file_system(location)
        return files.exists(path)
