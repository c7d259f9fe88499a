"""Whether what a command would replace is its own: nothing else is replaced without being asked.

A shard is this project's where its record is there, or where its parts say that it is just being
put in place. Everything else of the same name was made by another program.
"""

import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

from blendtitan.errors import ConfigError, ShardError
from blendtitan.files import DamagedFileError, read_json
from blendtitan.prepare.documents import Settings
from blendtitan.prepare.file_formats import format_of
from blendtitan.prepare.input_file import is_url, path_of
from blendtitan.prepare.join import Record, has_shard, load_record, record_paths
from blendtitan.prepare.parts import Manifest
from blendtitan.prepare.plan import Shard
from blendtitan.prepare.runs import described_settings
from blendtitan.storage.reader import ShardIndex
from blendtitan.storage.records import ENDS_SUFFIX, SHARD_SUFFIXES
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)


def check_replaceable(shard: Shard, settings: Settings, tokenizer: Path) -> None:
    """Check that a shard can be written without replacing anything but what it was before.

    Raises:
        ConfigError: A shard, or files of its names, are there that were made by another program,
            with other settings, or from another input.
    """
    try:
        record = load_record(shard.record_path)
    except DamagedFileError as error:
        logger.warning("%s. The shard is made again.", error)
        return
    if record is None:
        _check_unrecorded(shard)
    else:
        _check_recorded(shard, record, settings, tokenizer)
    _check_parts(shard, settings, tokenizer)


def check_other_shards(
    output: Path, shards: Collection[Shard], settings: Settings, *, tokenizer: Path, overwrite: bool
) -> None:
    """Check that the shards of ``output`` that this command does not make have its settings.

    Raises:
        ConfigError: One has others, and nothing is to be overwritten.
    """
    planned = {shard.record_path for shard in shards}
    others = [
        (prefix, record)
        for prefix, path in record_paths(output)
        if path not in planned
        if (record := _readable_record(path)) is not None and record.settings != settings
        if has_shard(prefix, record) and record.counts.documents
    ]
    if not others:
        return
    prefix, record = others[0]
    found = (
        f"{prefix}: was made with {described_settings('', record.settings)}, and this command has "
        f"{described_settings(str(tokenizer), settings)}."
    )
    if not overwrite:
        raise ConfigError(f"{found} One output holds shards of one tokenizer: choose another one.")
    logger.warning(
        "%s %s shards like this stay as they are: make them again as well, or delete them.",
        *(found, f"{len(others):,}"),
    )


def _check_unrecorded(shard: Shard) -> None:
    # Of another release, or just being put in place.
    if os.path.lexists(shard.record_path) or shard.placing_path.exists():
        return
    for suffix in SHARD_SUFFIXES:
        path = Path(f"{shard.prefix}{suffix}")
        # `verify` writes the record of document ends beside any shard, so it says nothing about
        # whose the shard is, and it may be left from one that is gone.
        if suffix != ENDS_SUFFIX and os.path.lexists(path):
            raise ConfigError(
                f"{path}: is there already, and was not made by `blendtitan tokenize` in this "
                f"folder. Choose another --output, move the shard away, or replace it with "
                f"--overwrite."
            )
    if os.path.lexists(shard.rejects_path) and not shard.parts_folder.exists():
        raise ConfigError(
            f"{shard.rejects_path}: is there already, and was not made by `blendtitan tokenize` in "
            f"this folder. Move it away, or replace it with --overwrite."
        )


def _check_recorded(shard: Shard, record: Record, settings: Settings, tokenizer: Path) -> None:
    if not has_shard(shard.prefix, record):
        if not shard.placing_path.exists() and _is_whole(shard.prefix):
            raise ConfigError(
                f"{shard.prefix}: is not the shard that {shard.record_path} describes; another "
                f"program replaced it. Choose another --output, or replace it with --overwrite."
            )
        return
    if (record.key, record.settings) != (shard.key, settings):
        raise ConfigError(
            f"{shard.prefix}: was made of key {record.key!r} with "
            f"{described_settings('', record.settings)}, and this command has key {shard.key!r} "
            f"and {described_settings(str(tokenizer), settings)}. Choose another --output, or "
            f"replace the shards with --overwrite."
        )
    made, asked = _split(record.source), _split(shard.source)
    if made and asked and made != asked:
        raise ConfigError(
            f"{shard.prefix}: was made with --txt {made}, and this command has --txt {asked}. "
            f"Choose another --output, or replace the shards with --overwrite."
        )
    source = str(record.source.get("input", ""))
    if _is_another_input(source, shard.input.location):
        raise ConfigError(
            f"{shard.prefix}: was made from {source}, and this command would replace it by a shard "
            f"of {shard.input.location}. Choose another --output, a subfolder with --corpus, or "
            f"replace the shard with --overwrite."
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
                    f"{shard.parts_folder}: holds unfinished work with {of_parts}, and this "
                    f"command has {described_settings(str(tokenizer), settings)}. Finish it with "
                    f"the settings it was begun with, choose another --output, or discard it with "
                    f"--overwrite."
                )
        return


def _split(source: Mapping[str, object]) -> str:
    """How a .txt file becomes documents, as --txt names it; empty for every other file."""
    found = format_of(PurePosixPath(path_of(str(source.get("input", "")))).name)
    return str(source.get("txt", "file")) if found and found.kind == "text" else ""


def _is_another_input(recorded: str, location: str) -> bool:
    """Whether a shard's input is another one, which is still there; it was not just moved."""
    if recorded == location or is_url(recorded) != is_url(location):
        return recorded != location and (is_url(recorded) or os.path.exists(recorded))
    if is_url(recorded):
        return True
    try:
        return not os.path.samefile(recorded, location)
    except (OSError, ValueError):
        return False


def _is_whole(prefix: Path) -> bool:
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
