"""The final report of ``blendtitan tokenize``: rejected texts, errors, warnings, a table."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from blendtitan.errors import ConfigError, InputError
from blendtitan.files import DamagedFileError, open_file
from blendtitan.json_files import LIMIT_BYTES, parse_json
from blendtitan.prepare.documents import Counts, grouped, is_accepted, read_texts
from blendtitan.prepare.existing import RemovedInput
from blendtitan.prepare.input_file import is_url
from blendtitan.prepare.plan import Job, Plan, Shard
from blendtitan.prepare.records import read_record
from blendtitan.prepare.streams import BadText
from blendtitan.storage.list_forms import corpus_in_folder
from blendtitan.tables import Table
from blendtitan.tokenizers import Tokenizer
from blendtitan.visible import counted, visible_logger

logger = visible_logger(__name__)

SHOWN_REJECTS = 20
"""Most reasons to show, with one text each; a file beside each shard lists all its texts."""

_MOST_READ = 100


def check_counts(
    counts: Mapping[Shard, Counts],
    errors: Sequence[str],
    max_rejects: int,
    *,
    is_stopped: bool = False,
) -> None:
    """Warn about odd documents; raise if there are errors, too many rejects, or no documents.

    ``is_stopped`` says that the work ended early, because of too many rejects.
    """
    num_rejects = sum(found.rejects for found in counts.values())
    rejects = _reject_lines(counts)
    if errors or is_stopped or num_rejects > max_rejects:
        by_file = ((error.partition(": ")[2] or error, error) for error in errors)
        failures = grouped(by_file, most=len(errors), more="more files like it")
        # Failures come last, where people look first. Of many, a screen may show only some, so the
        # summary names the option.
        summary = [counted(len(errors), "error")] if errors else []
        if is_stopped:
            summary.append(
                f"stopped, because more texts were rejected than --max-rejects allows, which is "
                f"{max_rejects:,}"
            )
        elif num_rejects:
            allowed = f"{max_rejects:,} allowed (--max-rejects)"
            summary.append(f"{counted(num_rejects, 'text')} rejected in finished jobs, {allowed}")
        raise InputError(
            f"{'; '.join(summary)}. A file with an error has no new shard. Run the command again: "
            f"it does not repeat finished work.",
            *rejects,
            *(line for text in failures for line in text.splitlines()),
        )
    total = sum(counts.values(), Counts())
    if not total.documents:
        raise InputError(
            *rejects,
            f"{counted(len(counts), 'file contains', 'files contain')} no document at all "
            f"({counted(num_rejects, 'text')} rejected)",
        )
    for line in rejects:
        logger.warning("rejected: %s", line)
    for shard, found in counts.items():
        if found.documents == 0:
            logger.warning("%s: contains no documents, so it has no shard", shard.input.location)
    if total.with_unknown:
        logger.warning(
            "documents with the unknown token: %d of %d. The tokenizer lacks some of their "
            "characters.",
            *(total.with_unknown, total.documents),
        )
    if total.without_text:
        logger.warning(
            "documents of EOD only: %d of %d. The tokenizer drops all of their text.",
            *(total.without_text, total.documents),
        )


def first_problems(plan: Plan, output: Path, errors: Sequence[str]) -> list[str]:
    """Problems with the first text of each corpus, so that one command finds all wrong keys.

    Corpora with a file in ``errors`` are left out, and so are URLs, which may take long to read.
    """
    found: list[str] = []
    first: dict[str, Job] = {}
    known: set[str] = set()
    for shard, jobs in plan.items():
        corpus, location = corpus_in_folder(shard.prefix, output), shard.input.location
        if any(location in error for error in errors):
            known.add(corpus)
        elif jobs and not is_url(location):
            first.setdefault(corpus, jobs[0])
    for job in islice((first[corpus] for corpus in first if corpus not in known), _MOST_READ):
        try:
            text = next(read_texts(job, lambda _: None), None)
        except InputError as error:
            found.append(str(error))
        else:
            if isinstance(text, BadText):
                place = f"{job.shard.input.location}, {text.unit} {text.place}"
                found.append(f"{place}: {text.reason}")
    return found


def report_lost_lines(tokenizer: Tokenizer) -> None:
    """Warn about a tokenizer that turns line breaks into spaces, a default of SentencePiece."""
    texts = ("one\ntwo", "one two", "onetwo")
    try:
        line_break, space, none = map(tokenizer.encode, texts)
    except ConfigError:  # it has no unknown token, and knows other texts only
        return
    # To a tokenizer of another alphabet, such as that of proteins, all three may be the same.
    if line_break == space != none:
        logger.warning(
            "%s: the tokenizer turns line breaks into spaces, so the model never sees where a line "
            "ends. To keep them, train the tokenizer again: with SentencePiece, "
            "normalization_rule_name=identity, remove_extra_whitespaces=false and "
            "byte_fallback=true; for a tokenizer.json, another normalizer or pre_tokenizer.",
            tokenizer.path,
        )


def report_unproven(shards: Iterable[Shard]) -> None:
    """Warn about shards that the fast tier made before its ids were proven."""
    records = (read_record(shard.prefix, shard.record_path) for shard in shards)
    unproven = [record for record in records if record and not is_accepted(record.tier, "auto")]
    if unproven:
        logger.warning(
            "shards rebuilt: %d. The fast tokenizer tier (%s) encoded them before its ids "
            "were proven equal to those of the reference, so some ids may have been wrong.",
            *(len(unproven), unproven[0].tier),
        )


def report_removed(removed: Sequence[RemovedInput], remains: str, *, is_pruned: bool) -> None:
    """Report shards whose input was removed, and what becomes of those that remain."""
    for left in removed:
        if not left.counts.documents:
            continue  # it never had a shard
        if is_pruned:
            logger.info("%s: was removed, so its shard %s was deleted", left.location, left.prefix)
        else:
            logger.warning(
                "%s: was removed, but its shard %s with %s still exists, and %s. "
                "Delete it with --prune.",
                *(left.location, left.prefix),
                *(counted(left.counts.documents, "document"), remains),
            )


def report_empty_fields(counts: Mapping[Shard, Counts], keep: Sequence[str]) -> None:
    """Warn about fields to keep that no document has: their names may be wrong."""
    missing = set(keep)
    for shard, found in counts.items():
        if not missing:
            return
        if found.documents:
            from blendtitan.document_sources import open_sources

            with open_sources(shard.prefix) as sources:
                missing &= sources.empty_fields() if sources else missing
    if missing:
        names = ", ".join(repr(name) for name in keep if name in missing)
        what = "field" if len(missing) == 1 else "fields"
        logger.warning("no document has the %s %s (--keep)", what, names)


def tokenize_table(
    counts: Mapping[Shard, Counts], output: Path, removed: Iterable[RemovedInput] = ()
) -> Table:
    """Shards, documents, tokens and rejects of each corpus below ``output``, and their sums.

    Shards of removed inputs have rows of their own, because they are still in the catalog.
    """
    num_shards: Counter[str] = Counter()
    sums: defaultdict[str, Counts] = defaultdict(Counts)
    rows = [(shard.prefix, "", found) for shard, found in counts.items()]
    rows += [(left.prefix, " (input removed)", left.counts) for left in removed]
    for prefix, note, found in rows:
        corpus = corpus_in_folder(prefix, output.absolute()) + note
        num_shards[corpus] += found.documents > 0
        sums[corpus] += found
    table = Table(("corpus", "shards", "documents", "tokens", "rejects"))
    for corpus, found in sorted(sums.items()):
        table.add_row(corpus, num_shards[corpus], found.documents, found.tokens, found.rejects)
    total = sum(sums.values(), Counts())
    table.add_row("total", num_shards.total(), total.documents, total.tokens, total.rejects)
    return table


def _reject_lines(counts: Mapping[Shard, Counts]) -> list[str]:
    """A rejected text for each of the first reasons, and the number of rejects of each file."""
    lines: list[str] = []

    def described() -> Iterator[tuple[str, str]]:
        for shard, found in counts.items():
            location, path = shard.input.location, shard.rejects_path
            try:
                yield from _rejects(path) if found.rejects else ()
            except (OSError, DamagedFileError) as error:
                lines.append(
                    f"{location}: {found.rejects:,} texts, but their list cannot be read "
                    f"({error}). To recreate it, delete {shard.record_path} and run with "
                    f"--overwrite."
                )
            if found.rejects > SHOWN_REJECTS:
                lines.append(f"{location}: {found.rejects:,} texts in all, listed in {path}")

    shown = grouped(described(), most=SHOWN_REJECTS)
    return [*lines, *shown]


def _rejects(path: Path) -> Iterator[tuple[str, str]]:
    """Reason and description of each rejected text."""
    with open_file(path) as file:
        while line := file.readline(LIMIT_BYTES):
            reject = parse_json(line, dict)
            reason = str(reject.get("reason"))
            place = f"byte {reject['byte']}" if "byte" in reject else f"row {reject.get('row')}"
            yield reason, f"{reject.get('input')}, {place}: {reason}"
