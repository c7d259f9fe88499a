"""A run folder, which ``blendtitan init`` writes, and ``prepare`` and ``train`` read.

DIR/data.toml       the tokenizer and the corpora; edit it and prepare again
DIR/config.toml     the run; edit it, or override keys on the command line of ``train``
DIR/tokens/         shards, made by ``prepare``
DIR/file_list.txt   shards and their weights, made by ``prepare``
DIR/outputs/        checkpoints and metrics, made by ``train``
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import tomlkit

from blendtitan.errors import ConfigError, InputError
from blendtitan.files import read_text
from blendtitan.prepare.input_file import is_url, without_suffixes
from blendtitan.prepare.inputs import WILDCARDS, find_inputs
from blendtitan.prepare.mix import CorpusMix, MixConfig, mix
from blendtitan.prepare.tokenize import TokenizeConfig, tokenize
from blendtitan.settings.templates import LAUNCH_SCRIPTS, TEMPLATES
from blendtitan.settings.toml import toml_document
from blendtitan.start.train import CONFIG, DATA, FILE_LIST, OUTPUTS, TOKENS
from blendtitan.storage.atomic_files import write_atomically
from blendtitan.storage.list_forms import find_shards
from blendtitan.tables import Table
from blendtitan.tokenizers import ABSENT, Tokenizer, load_tokenizer

_DATA_HEAD = """\
# What `blendtitan prepare` reads. After a change, run it again: finished work is kept.
"""

_CONFIG_HEAD = """\
# The run, from the template {template}. Override any key on the command line of `blendtitan train`:
# --training.steps 100. Every key: docs/configuration.md.

"""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The content of ``data.toml``."""

    tokenizer: str
    """File of the tokenizer."""

    corpora: dict[str, str] = field(default_factory=dict)
    """Text of each corpus: a file, a folder, a pattern or a URL."""

    epochs: dict[str, float] = field(default_factory=dict)
    """Epochs of each corpus in one pass over the blend; 1 if it is not named."""

    shards: list[str] = field(default_factory=list)
    """Folders of shards that exist already, prefixes of shards, or file lists."""

    key: str = "text"
    """Field or column that holds the text."""


@dataclass(frozen=True, slots=True)
class FoundCorpus:
    """One corpus that ``init`` found."""

    name: str
    location: str
    num_files: int
    num_bytes: int
    formats: tuple[str, ...]
    """Suffixes of the files, such as ``.jsonl.zst``."""


def init_folder(
    folder: Path,
    data: Sequence[str],
    tokenizer: str | Path,
    *,
    template: str,
    key: str,
    scheduler: str | None = None,
) -> list[FoundCorpus]:
    """Write ``data.toml`` and ``config.toml`` for some text, or shards, and a tokenizer.

    Args:
        folder: The run folder. It may exist, but not hold a run.
        data: Files, folders or patterns of text, or folders of shards; ``NAME=PATH`` names the
            corpus. Without a name, each folder below a folder is a corpus.
        tokenizer: File or folder of the tokenizer.
        template: Name of a configuration of the project.
        key: Field or column that holds the text.
        scheduler: ``slurm`` or ``pbs``: also write a job script for runs on several nodes.

    Raises:
        ConfigError: The folder holds a run, there is no such template, two corpora have one
            name, or the tokenizer has no EOS.
        InputError: There is no readable text.
    """
    for name in (CONFIG, DATA):
        if (folder / name).exists():
            raise ConfigError(
                f"{folder / name} exists, so {folder} is a run folder already. Edit its files, or "
                f"choose another folder."
            )
    document = _template(template)
    shards = [path for path in data if _holds_shards(path)]
    found = [corpus for path in data if path not in shards for corpus in _corpora_in(path)]
    twice = [name for name, count in Counter(corpus.name for corpus in found).items() if count > 1]
    if twice:
        raise ConfigError(
            f"two inputs would become the corpus {twice[0]!r}. Give them names: --data NAME=PATH"
        )
    loaded = load_tokenizer(tokenizer)
    if loaded.eos_id == ABSENT:
        remedy = "Choose a tokenizer with one."
        if loaded.path.suffix == ".json":
            remedy = "Name it in tokenizer_config.json beside this file, as eos_token."
        raise ConfigError(
            f"{loaded.path}: the tokenizer has no EOS, which must end every document. {remedy}"
        )
    path = folder.absolute()
    _fill_in(document, path, loaded)
    config = DataConfig(
        tokenizer=str(loaded.path.absolute()),
        corpora={corpus.name: corpus.location for corpus in found},
        shards=[str(Path(shard).absolute()) for shard in shards],
        key=key,
    )
    folder.mkdir(parents=True, exist_ok=True)
    text = tomlkit.dumps(document)
    write_atomically(folder / DATA, _data_toml(config).encode())
    write_atomically(folder / CONFIG, (_CONFIG_HEAD.format(template=template) + text).encode())
    if scheduler is not None:
        script = read_text(LAUNCH_SCRIPTS / f"{scheduler}.sh")
        write_atomically(folder / f"{scheduler}.sh", script.encode())
    return found


def prepare_folder(folder: Path, *, workers: int | None = None) -> list[CorpusMix]:
    """Tokenise the corpora of a run folder and write its file list. Finished work is kept.

    Args:
        folder: The run folder.
        workers: Processes. None: one per core.

    Raises:
        ConfigError: ``data.toml`` is missing or cannot be used, or there are shards of a corpus
            that it does not name.
        InputError: Text cannot be read.
        ShardError: A shard cannot be used.
    """
    from blendtitan.prepare.engines import started_engine

    config = read_data_config(folder / DATA)
    tokens = folder / TOKENS
    settings = TokenizeConfig(tokenizer=Path(config.tokenizer), keys=(config.key,))
    _check_corpora(tokens, config.corpora)
    with started_engine("local", workers=workers) as engine:
        for corpus, location in config.corpora.items():
            try:
                tokenize([location], tokens, settings, corpus=corpus, engine=engine)
            except InputError as error:
                if "there is no key" in str(error):
                    error.add_note(f"The key of the text is `key` in {folder / DATA}.")
                raise
    inputs = [tokens] * bool(config.corpora) + [Path(shard) for shard in config.shards]
    return mix(inputs, folder / FILE_LIST, MixConfig(epochs=config.epochs))


def _check_corpora(tokens: Path, corpora: Mapping[str, str]) -> None:
    """Check that all shards belong to a named corpus: the others would be read as well."""
    made = sorted(path.name for path in tokens.glob("*") if path.is_dir())
    for name in made:
        if name not in corpora and not name.startswith("."):
            raise ConfigError(
                f"{tokens / name}: holds the shards of a corpus that [corpora] in data.toml does "
                f"not name. Add it there, or delete the folder."
            )


def read_data_config(path: Path) -> DataConfig:
    """The content of ``data.toml``.

    Raises:
        ConfigError: It is missing, or has other keys or values.
    """
    if not path.exists():
        raise ConfigError(
            f"{path}: there is no such file. Make a run folder first: blendtitan init"
        )
    values = toml_document(path)
    known = [each.name for each in fields(DataConfig)]
    for key in sorted(values.keys() - {*known}):
        raise ConfigError(f"{path}: unknown key {key}, expected one of {', '.join(known)}")
    try:
        config = msgspec.convert(values, DataConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not config.corpora and not config.shards:
        raise ConfigError(f"{path}: names no corpus, expected [corpora] or shards")
    return config


def corpus_table(found: Sequence[FoundCorpus]) -> Table:
    """The corpora that were found, one in a row."""
    rows = [
        (c.name, f"{c.num_files:,}", f"{c.num_bytes / 1e6:,.1f} MB", " ".join(c.formats))
        for c in found
    ]
    return Table(("corpus", "files", "size", "formats"), rows, texts=["formats"])


def _template(name: str) -> tomlkit.TOMLDocument:
    path = TEMPLATES / f"{name}.toml"
    names = sorted(file.stem for file in TEMPLATES.glob("*.toml"))
    if name not in names:
        raise ConfigError(f"there is no template {name!r}, expected one of {', '.join(names)}")
    # The comment at the top is about the template.
    return tomlkit.parse(re.sub(r"\A(#.*\n)*\n", "", read_text(path)))


def _fill_in(document: tomlkit.TOMLDocument, folder: Path, tokenizer: Tokenizer) -> None:
    job: Any = document["job"]
    job["description"] = folder.name
    job["dump_folder"] = str(folder / OUTPUTS)
    model: Any = document["model"]
    model.pop("hf_assets_path", None)
    model["tokenizer_path"] = str(tokenizer.path.absolute())
    section: Any = document["blendcorpus"]
    section["data_file_list"] = str(folder / FILE_LIST)
    if "data_cache_path" in section:
        section["data_cache_path"] = str(folder / "cache")


def _data_toml(config: DataConfig) -> str:
    document = tomlkit.parse(_DATA_HEAD)
    document["tokenizer"] = config.tokenizer
    document["key"] = config.key
    document["key"].comment("field or column that holds the text")
    if config.shards:
        document["shards"] = config.shards
    corpora = tomlkit.table()
    corpora.update(config.corpora)
    document["corpora"] = corpora
    epochs = tomlkit.table()
    epochs.comment("how often one pass over the blend reads a corpus; 1 if it is not named")
    for name in config.corpora:
        epochs.add(name, 1.0)
    document["epochs"] = epochs
    return tomlkit.dumps(document)


def _holds_shards(path: str) -> bool:
    return not is_url(path) and Path(path).is_dir() and bool(find_shards(Path(path)))


def _corpora_in(text: str) -> list[FoundCorpus]:
    name, equals, location = text.partition("=")
    if not equals or "/" in name:
        name, location = "", text
    files = list(find_inputs(location))
    if not is_url(location):
        location = str(Path(location).absolute())
    first_folders = {relative.parts[0] for _, relative in files if len(relative.parts) > 1}
    is_flat = any(len(relative.parts) == 1 for _, relative in files)
    if name or is_flat or not WILDCARDS.isdisjoint(location):
        return [_found(name or _name_of(location), location, files)]
    return [
        _found(
            folder,
            f"{location.rstrip('/')}/{folder}",
            [(file, relative) for file, relative in files if relative.parts[0] == folder],
        )
        for folder in sorted(first_folders)
    ]


def _name_of(location: str) -> str:
    parts = [p for p in PurePosixPath(location).parts if WILDCARDS.isdisjoint(p) and p != "/"]
    return without_suffixes(parts[-1]) if parts else "text"


def _found(name: str, location: str, files: Sequence[tuple[Any, PurePosixPath]]) -> FoundCorpus:
    suffixes = {relative.name[len(without_suffixes(relative.name)) :] for _, relative in files}
    return FoundCorpus(
        name=name,
        location=location,
        num_files=len(files),
        num_bytes=sum(file.num_bytes for file, _ in files),
        formats=tuple(sorted(suffixes)),
    )
