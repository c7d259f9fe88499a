"""Checks of the text that a run folder names, before any of it is tokenised."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from blendtitan.errors import ConfigError, InputError
from blendtitan.prepare.documents import read_texts
from blendtitan.prepare.input_file import InputFile, is_url
from blendtitan.prepare.plan import Shard, keys_by_corpus, plan_jobs
from blendtitan.prepare.streams import BadText
from blendtitan.prepare.tokenize import JOB_BYTES
from blendtitan.runs.run_folder import DATA
from blendtitan.start.data import expanded
from blendtitan.start.found import FoundCorpus, corpora_in
from blendtitan.storage.list_forms import find_shards


def check_read_once(files: Iterable[tuple[str, InputFile]]) -> None:
    """Check that no file is in two corpora."""
    first: dict[str, str] = {}
    for corpus, file in files:
        other = first.setdefault(file.location, corpus)
        if other != corpus:
            raise ConfigError(
                f"{file.location}: is in two corpora, {other} and {corpus}, expected one. To read "
                f"a corpus more than once, set its epochs in {DATA}."
            )


def named_corpora(text: str) -> list[FoundCorpus]:
    """``corpora_in`` of a value of ``--data``; its error says what is special about shards."""
    try:
        return corpora_in(text)
    except InputError as error:
        name, equals, location = text.partition("=")
        path = Path(expanded(location))
        if equals and "/" not in name and path.is_dir() and find_shards(path):
            error.add_note(
                f"It holds .bin/.idx shards, whose corpora have the names of their folders: name "
                f"it without {name}="
            )
        raise


def checked_keys(keys: Sequence[str], found: Sequence[FoundCorpus]) -> tuple[str, dict[str, str]]:
    """The key of the text, and those of single corpora."""
    others, key_of = keys_by_corpus(keys)
    if len(others) > 1:
        raise ConfigError(
            f"the keys are {', '.join(others)}, expected one. For a corpus with a key of its own: "
            f"--key CORPUS=NAME"
        )
    names = [corpus.name for corpus in found]
    if unknown := sorted(key_of.keys() - {*names}):
        expected = f"expected one of {', '.join(names)}" if names else "and shards have no key"
        raise ConfigError(
            f"--key {unknown[0]}={key_of[unknown[0]]}: there is no text of a corpus "
            f"{unknown[0]!r}, {expected}"
        )
    return others[0], key_of


def check_texts(found: Sequence[FoundCorpus], key: str, key_of: Mapping[str, str]) -> None:
    """Check the first text of each corpus. ``prepare`` checks the others, and those at URLs."""
    checked = ((corpus, _problem(corpus, key_of.get(corpus.name, key))) for corpus in found)
    problems = {corpus.name: problem for corpus, problem in checked if problem}
    if problems:
        error = InputError(*problems.values())
        has_no_key = re.compile("there is no (key|column)|of type").search
        if wrong := [name for name, problem in problems.items() if has_no_key(problem)]:
            needed = [""] if len(wrong) == len(found) else [f" {name}=NAME" for name in wrong[:4]]
            options = " ".join(f"--key{each}" for each in needed)
            error.add_note(f"Name the field or column of the text with {options}.")
        raise error


def _problem(corpus: FoundCorpus, key: str) -> str:
    """What makes the first text of a corpus unusable; empty if nothing does."""
    if not any(file.num_bytes for file in corpus.files):
        return f"{corpus.location}: holds only empty files, expected text"
    for file in corpus.files:
        if is_url(file.location) or file.format.kind == "text":
            return ""
        job = plan_jobs(Shard(file, key, Path(), Path()), JOB_BYTES)[0]
        try:
            text = next(read_texts(job, lambda _: None), None)
        except InputError as error:
            return str(error)
        if isinstance(text, BadText) and not re.search(_OF_ONE_TEXT, text.reason):
            return f"{file.location}, {text.unit} {text.place}: {text.reason}"
        if text is not None:
            return ""
    return ""


_OF_ONE_TEXT = "is an empty string|--max-document-bytes"
"""Reasons to reject a text that say nothing about the next one."""
