"""A run folder as ``blendtitan init`` makes it: its files, and what errors about its data advise.

The advice is added where every command reads the data of a run, so all of them give it.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from blendtitan.errors import (
    BlendTitanError,
    ConfigError,
    CorruptShardError,
    FileListError,
    MissingShardError,
    TokenizerMismatchError,
)
from blendtitan.files import url_of
from blendtitan.settings.toml import RESOLVED, toml_document

CONFIG, DATA, FILE_LIST = "config.toml", "data.toml", "file_list.txt"
TOKENS, OUTPUTS = "tokens", "outputs"
"""Names in a run folder."""

Model = Mapping[str, str | None]

TOKENIZER_KEYS = ("tokenizer_path", "hf_assets_path")
"""Keys of ``[model]`` that name a tokenizer; the first one that is set counts."""


def check_prepared(folder: Path, file_list: str | Path) -> None:
    """Check that ``prepare`` made the file list of a run folder, if it is one that init made.

    ``file_list`` is that of the run. If it is a URL, or another list that exists, the run reads
    nothing that ``prepare`` makes.
    """
    if url_of(file_list) or Path(file_list).exists():
        return
    if (folder / DATA).is_file() and not (folder / FILE_LIST).is_file():
        raise ConfigError(
            f"{folder / FILE_LIST}: there is no such file, because the data is not prepared. Run "
            f"blendtitan prepare {folder}"
        )


def no_run_error(path: Path) -> ConfigError:
    """The error for a run that does not exist."""
    return ConfigError(
        f"{path}: there is no such file or run folder. Make a run folder with blendtitan init, or "
        f"name a TOML file."
    )


def run_file(source: Path) -> Path:
    """The TOML file of a run: ``source``, or that of the folder ``source``."""
    if not source.exists():
        raise no_run_error(source)
    if not source.is_dir():
        return source
    if not (source / RESOLVED).is_file():
        raise ConfigError(
            f"{source}: this folder has no {RESOLVED}. Name a run's output folder, or a TOML file"
        )
    return source / RESOLVED


def check_own_output(config: Path, output: Path) -> None:
    """Check that a run folder's run does not continue that of another folder.

    Raises:
        ConfigError: The output folder of its configuration is in another run folder.
    """
    if not (config.parent / DATA).is_file():
        return
    folders = (output.absolute(), *output.absolute().parents)
    other = next((folder for folder in folders if (folder / DATA).is_file()), None)
    if other is not None and not other.samefile(config.parent):
        raise ConfigError(
            f"{config}: job.dump_folder is {str(output)!r}, so training would continue the run in "
            f"{other}. After a run folder was copied or moved, correct all paths in its "
            f"{config.name} and {DATA}. To continue that run: blendtitan train {other}"
        )


def two_lists(config: Path) -> str:
    """What to do if a run folder's configuration names another file list than its own, or nothing.

    Call it when ``prepare`` has written the folder's own list.
    """
    named, own = None, config.parent / FILE_LIST
    with suppress(BlendTitanError, OSError):
        named = toml_document(config).get("blendcorpus", {}).get("data_file_list")
    if not isinstance(named, str):
        return ""
    path = Path(named).expanduser()
    if path.exists() and path.samefile(own):
        return ""
    return (
        f'{config} trains with blendcorpus.data_file_list = "{named}", not with the list '
        f'just written. To train with that one, set it to "{own.absolute()}".'
    )


@contextmanager
def advising(config: Path, file_list: Path, model: Model) -> Iterator[None]:
    """Say in errors about the data of a run how to mend it.

    Args:
        config: The TOML file of the run: a run folder's, the complete one in its outputs, or any.
        file_list: That of the run.
        model: Its ``[model]``.
    """
    folder = next((f for f in config.parents[:2] if (f / DATA).is_file()), None)
    try:
        yield
    except FileListError as error:
        if folder:
            check_prepared(folder, file_list)
        if not url_of(file_list) and not file_list.exists():
            error.add_note(
                f"It is blendcorpus.data_file_list. After a run folder was moved, correct the "
                f"paths in {config} and in {DATA}."
            )
        raise
    except MissingShardError as error:
        if folder:
            error.add_note(f"To make the shards that are missing: blendtitan prepare {folder}")
        raise
    except CorruptShardError as error:
        if folder and _is_made_again(str(error), folder.absolute() / TOKENS):
            error.add_note(f"To make the damaged shard again: blendtitan prepare {folder}")
        raise
    except TokenizerMismatchError as error:
        if folder and (advice := two_tokenizers(folder / DATA, config, model)):
            error.add_note(advice)
        raise


def _is_made_again(problem: str, tokens: Path) -> bool:
    """Whether ``prepare`` makes a damaged shard again: it compares the sizes of its own shards."""
    has_wrong_size = re.search(r"found [\d,]+ bytes?, expected|has 0 bytes", problem)
    return problem.startswith(f"{tokens}{os.sep}") and has_wrong_size is not None


def two_tokenizers(data: Path, config: Path, model: Model | None = None) -> str:
    """What to do if both files of a run folder name different tokenizers; empty if they agree.

    ``model`` is the ``[model]`` of the run; None: that of ``config``.
    """
    prepared: Any = None
    in_file: dict[str, Any] = {}
    with suppress(BlendTitanError, OSError):
        prepared = toml_document(data).get("tokenizer")
        in_file = toml_document(config).get("model", {})
    used = in_file if model is None else model
    key = next((key for key in TOKENIZER_KEYS if used.get(key)), None)
    if key is None or not isinstance(prepared, str) or _is_same(prepared, str(used[key])):
        return ""
    where, remedy = str(config), f'set model.{key} = "{prepared}" in {config.name}'
    if in_file.get(key) != used[key] and any(map(in_file.get, TOKENIZER_KEYS)):
        where, remedy = "the command line", f"leave --model.{key} out"
    return (
        f'{data} prepares data for tokenizer = "{prepared}", but {where} names model.{key} = '
        f'"{used[key]}". To train with the former, {remedy}.'
    )


def _is_same(one: str, other: str) -> bool:
    first, second = Path(one).expanduser().absolute(), Path(other).expanduser().absolute()
    return first == second or second in first.parents  # a folder stands for the file in it
