"""A run folder, which ``blendtitan init`` writes, and ``prepare`` and ``train`` read.

DIR/data.toml       the tokenizer and the corpora; edit it and prepare again
DIR/config.toml     the run; edit it, or override keys on the command line of ``train``
DIR/tokens/         shards, made by ``prepare``
DIR/file_list.txt   shards and their weights, made by ``prepare``
DIR/prepared.toml   the data.toml that ``prepare`` read; ``train`` refuses another one
DIR/outputs/        checkpoints and metrics, made by ``train``
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import tomlkit

from blendtitan.config import BlendConfig
from blendtitan.dataset.build import read_catalog
from blendtitan.errors import (
    BlendTitanError,
    ConfigError,
    FileListError,
    InputError,
    MissingExtraError,
    TokenizerMismatchError,
)
from blendtitan.files import path_of, read_file, read_text, url_of
from blendtitan.prepare.input_file import TxtMode, is_url
from blendtitan.prepare.mix import CorpusMix, MixConfig, check_repetition, mix
from blendtitan.prepare.plan import Shard, plan_shards
from blendtitan.prepare.report import report_lost_lines
from blendtitan.prepare.tokenize import TokenizeConfig, tokenize_shards
from blendtitan.runs.prepared import keep_prepared
from blendtitan.runs.run_folder import CONFIG, DATA, FILE_LIST, OUTPUTS, TOKENS
from blendtitan.settings.templates import LAUNCH_SCRIPTS, TEMPLATES, page_url
from blendtitan.start.data import (
    DataConfig,
    data_toml,
    expanded,
    read_data_config,
)
from blendtitan.start.found import FoundCorpus
from blendtitan.start.left_out import prune_unnamed, report_unnamed
from blendtitan.start.texts import check_read_once, check_texts, checked_keys, named_corpora
from blendtitan.storage.atomic_files import write_atomically, writing
from blendtitan.storage.list_forms import NamedShard, find_shards, nearest_name
from blendtitan.tokenizer_check.run import TokenizerCheck
from blendtitan.tokenizers import ABSENT, Tokenizer, load_tokenizer
from blendtitan.visible import joined, quietly, visible_logger

logger = visible_logger(__name__)

_CONFIG_HEAD = """\
# The run, from the template {template}. Override any key on the command line of `blendtitan train`:
# --training.steps 100. Every key: {page}

"""


class FoundData(NamedTuple):
    """The data that ``init`` found."""

    corpora: list[FoundCorpus]
    shards: Mapping[Path, list[Path]]
    """The prefixes of the shards below each folder of shards."""
    unvalidated: list[str]
    """Corpora whose shards have one document each, so that none can be set aside for validation."""

    @property
    def validates(self) -> bool:
        """Whether some shard has documents that can be set aside for validation."""
        return bool(self.shards) or len(self.unvalidated) < len(self.corpora)


def init_folder(
    folder: Path,
    data: Sequence[str],
    tokenizer: str | Path,
    *,
    template: str,
    keys: Sequence[str] = ("text",),
    txt: TxtMode = "file",
    scheduler: str | None = None,
) -> FoundData:
    """Write ``data.toml`` and ``config.toml`` for some text, or shards, and a tokenizer.

    Args:
        folder: The run folder. It may exist, but not hold a run.
        data: Files, folders or patterns of text, or folders of shards; ``NAME=PATH`` names the
            corpus. Without a name, each folder below a folder is a corpus.
        tokenizer: File or folder of the tokenizer.
        template: Name of a configuration of the project.
        keys: Field or column that holds the text, and ``CORPUS=KEY`` for single corpora.
        txt: Whether a ``.txt`` file is one document, or each of its lines is.
        scheduler: ``slurm`` or ``pbs``: also write a job script for runs on several nodes.

    Raises:
        ConfigError: The folder holds a run, there is no such template, two corpora have one
            name, the keys cannot be used, or the tokenizer has no EOS.
        InputError: There is no readable text.
    """
    for name in (CONFIG, DATA):
        if (folder / name).exists():
            raise ConfigError(
                f"{folder / name} exists, so {folder} is a run folder already. Edit its files, or "
                f"choose another folder."
            )
    document = _template(template)
    shards = {path: prefixes for path in data if (prefixes := _shards_below(path))}
    texts = [path for path in data if path not in shards]
    found = [corpus for path in texts for corpus in named_corpora(path)]
    twice = [name for name, count in Counter(corpus.name for corpus in found).items() if count > 1]
    if twice:
        raise ConfigError(
            f"two inputs would become the corpus {twice[0]!r}. Give each text once, and names to "
            f"different texts: --data NAME=PATH"
        )
    check_read_once((corpus.name, file) for corpus in found for file in corpus.files)
    key, key_of = checked_keys(keys, found)
    check_texts(found, key, key_of)
    loaded = _loaded(expanded(str(tokenizer)))
    if loaded.eos_id == ABSENT:
        remedy = "Choose a tokenizer with one."
        if loaded.path.suffix == ".json":
            remedy = "Name it in tokenizer_config.json beside this file, as eos_token."
        raise ConfigError(
            f"{loaded.path}: the tokenizer has no EOS, which must end every document. {remedy}"
        )
    for location in shards:
        _compare(loaded, location, folder / CONFIG)
    path = folder.absolute()
    named = url_of(tokenizer) or str(loaded.path.absolute())
    _fill_in(document, path, named)
    report_lost_lines(loaded)
    single = [
        corpus.name
        for corpus in found
        if txt == "file" and all(file.format.kind == "text" for file in corpus.files)
    ]
    result = FoundData(found, {path_of(expanded(path)): shards[path] for path in shards}, single)
    if not result.validates:
        _turn_validation_off(document)
    config = DataConfig(
        tokenizer=named,
        corpora={corpus.name: corpus.location for corpus in found},
        shards=[str(path_of(expanded(shard)).absolute()) for shard in shards],
        key=key,
        keys=key_of,
        txt=txt,
    )
    head = _CONFIG_HEAD.format(template=template, page=page_url("configuration"))
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if scheduler is not None:
        script = read_text(LAUNCH_SCRIPTS / f"{scheduler}.sh")
        write_atomically(folder / f"{scheduler}.sh", script.encode())
    write_atomically(folder / DATA, data_toml(config).encode())
    try:
        write_atomically(folder / CONFIG, (head + tomlkit.dumps(document)).encode())
    except BlendTitanError:
        # Half a run folder would refuse the next try.
        (folder / DATA).unlink()
        raise
    return result


def prepare_folder(
    folder: Path,
    *,
    workers: int | None = None,
    txt: TxtMode | None = None,
    configure: Callable[..., TokenizeConfig] = TokenizeConfig,
    max_epochs: float = 4.0,
) -> list[CorpusMix]:
    """Tokenise the corpora of a run folder and write its file list. Finished work is kept.

    Args:
        folder: The run folder.
        workers: Processes. None: one per core.
        txt: Replaces ``txt`` of ``data.toml``.
        configure: ``TokenizeConfig``, or a call of it with further settings.
        max_epochs: Largest number of epochs of a corpus; 0: no limit.

    Raises:
        ConfigError: ``data.toml`` is missing or cannot be used.
        InputError: Text cannot be read.
        ShardError: A shard cannot be used.
    """
    config = read_data_config(folder / DATA)
    data = read_file(folder / DATA)
    epochs = {name: number for name, number in config.epochs.items() if number}
    mixing = MixConfig(epochs=epochs, max_epochs=max_epochs)
    _check_epochs(folder / DATA, mixing)
    tokens = Path(os.path.abspath(folder / TOKENS))
    settings = configure(tokenizer=Path(config.tokenizer), keys=(config.key,))
    options = replace(settings.options, txt=txt or config.txt)
    settings = replace(settings, options=options)
    corpora = _read_corpora(tokens, config, prunes=settings.prune)
    planned: set[Path] = set()
    try:
        if corpora:
            planned = _tokenize(corpora, config.keys, tokens, settings, workers=workers)
    except (ConfigError, InputError) as error:
        named = (config.tokenizer, *corpora.values(), "key '", "--txt")
        if isinstance(error, InputError) or any(each in str(error) for each in named):
            error.add_note(f"The corpora, the tokenizer, key and txt are set in {folder / DATA}.")
        raise

    if corpora:
        if settings.prune:
            prune_unnamed(tokens, planned, kept=config.corpora.keys() - corpora.keys())
        report_unnamed(tokens, planned, corpora=corpora)

    def is_read(shard: NamedShard) -> bool:
        if corpora and shard.prefix.is_relative_to(tokens):
            return shard.prefix in planned
        return config.epochs.get(shard.corpus, 1) > 0

    inputs = [tokens] * bool(corpora) + [path_of(shard) for shard in config.shards]
    mixed = mix(inputs, folder / FILE_LIST, mixing, is_read=is_read)
    keep_prepared(folder, data)
    return mixed


def _tokenize(
    corpora: Mapping[str, str],
    key_of: Mapping[str, str],
    tokens: Path,
    settings: TokenizeConfig,
    *,
    workers: int | None,
) -> set[Path]:
    """Tokenise all corpora in one plan: no process waits for the end of another corpus.

    Returns:
        The prefixes of all planned shards.
    """
    from blendtitan.prepare.engines import started_engine

    planned: dict[str, tuple[Shard, ...]] = {}
    problems: list[str] = []
    for corpus, location in corpora.items():
        try:
            planned[corpus] = plan_shards(
                [location],
                tokens,
                keys=[key_of[corpus]] if corpus in key_of else settings.keys,
                corpus=corpus,
                options=settings.options,
                skip_unknown=settings.skip_unknown,
            )
        except InputError as error:
            problems += str(error).splitlines()
    if problems:
        raise InputError(*problems)
    check_read_once((name, shard.input) for name, shards in planned.items() for shard in shards)
    every = tuple(chain.from_iterable(planned.values()))
    with started_engine("local", workers=workers) as engine:
        counts = tokenize_shards(
            *(every, tokens, settings),
            inputs=[*corpora.values()],
            engine=engine,
            removed_are="is left out of the run",
        )
    empty = [
        f"{corpora[name]}: the corpus {name!r} has no document. Remove it from [corpora] and "
        f"[epochs], or add text."
        for name, shards in planned.items()
        if not any(counts[shard].documents for shard in shards)
    ]
    if empty:
        raise InputError(*empty)
    return {shard.prefix for shard in every}


def _check_epochs(path: Path, config: MixConfig) -> None:
    """Check the limit before hours of work: it does not depend on the number of tokens."""
    rows = [
        CorpusMix(corpus=name, num_shards=1, num_tokens=1, epochs=epochs)
        for name, epochs in config.epochs.items()
    ]
    try:
        check_repetition(rows, config)
    except ConfigError as error:
        error.add_note(f"The epochs are those in [epochs] of {path}.")
        raise


def _read_corpora(tokens: Path, config: DataConfig, *, prunes: bool) -> dict[str, str]:
    """The corpora to tokenise. Those of the run folder that a run does not read are logged."""
    is_read = {name: config.epochs.get(name, 1) > 0 for name in config.corpora}
    made = sorted(path.name for path in tokens.glob("[!.]*") if path.is_dir())
    dropped = [name for name in made if name not in is_read]
    if dropped:
        remedy = "" if prunes else ". To delete their shards, run with --prune."
        names = ", ".join(dropped)
        logger.info("left out of the run (not named in %s): %s%s", DATA, names, remedy)
    unread = [name for name, epochs in config.epochs.items() if not epochs]
    if unread:
        logger.info("left out of the run (0 epochs in %s): %s", DATA, ", ".join(unread))
    return {name: place for name, place in config.corpora.items() if is_read[name]}


def _template(name: str) -> tomlkit.TOMLDocument:
    path = TEMPLATES / f"{name}.toml"
    names = sorted(file.stem for file in TEMPLATES.glob("*.toml"))
    if name not in names:
        raise ConfigError(f"there is no template {name!r}, expected one of {', '.join(names)}")
    # The comment at the top is about the template.
    return tomlkit.parse(re.sub(r"\A(#.*\n)*\n", "", read_text(path)))


def _fill_in(document: tomlkit.TOMLDocument, folder: Path, tokenizer: str) -> None:
    job: Any = document["job"]
    job["description"] = folder.name
    job["dump_folder"] = str(folder / OUTPUTS)
    model: Any = document["model"]
    model.pop("hf_assets_path", None)
    model["tokenizer_path"] = tokenizer
    section: Any = document["blendcorpus"]
    section["data_file_list"] = str(folder / FILE_LIST)
    if "data_cache_path" in section:
        section["data_cache_path"] = str(folder / "cache")


def _turn_validation_off(document: tomlkit.TOMLDocument) -> None:
    enable = tomlkit.item(False)
    enable.comment("each shard is one .txt file, and so one document: nothing can be set aside")
    validation: Any = document["validation"]
    validation["enable"] = enable


def _loaded(tokenizer: str) -> Tokenizer:
    try:
        return load_tokenizer(tokenizer)
    except ConfigError as error:
        if not url_of(tokenizer) and not Path(tokenizer).exists():
            error.add_note(nearest_name(Path(tokenizer)))
        raise


def _compare(tokenizer: Tokenizer, location: str, config: Path) -> None:
    """Warn if shards on a disk were made with another tokenizer. All else is told by prepare."""
    if is_url(location):
        return
    place = Path(expanded(location))
    blend = BlendConfig(data_file_list=place, seq_length=1, eod_token_id=tokenizer.eos_id)
    try:
        with quietly():
            read_catalog(blend, check=TokenizerCheck(blend, tokenizer, action="error"))
    except TokenizerMismatchError as error:
        *found, _ = error.args
        remedy = (
            f"Name the tokenizer that made them. prepare and train refuse these shards, unless "
            f'{config} has blendcorpus.tokenizer_check = "warn".'
        )
        logger.warning("%s", joined([*found, remedy]))
    except BlendTitanError:  # also of settings, which config.toml may change
        return


def _shards_below(location: str) -> list[Path]:
    """The prefixes of the shards below a folder; none if it is a file, or holds text."""
    path = Path(expanded(location))
    if not is_url(location):
        return find_shards(path) if path.is_dir() else []
    if url_of(location) and not location.startswith("http"):  # web servers list no folders
        # Text is read by another library, which reports what is wrong.
        with suppress(MissingExtraError, FileListError):
            return find_shards(path_of(location))
    return []
