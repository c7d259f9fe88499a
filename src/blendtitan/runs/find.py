"""Documents by their sources, and when a run reads them: ``blendtitan find``."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from blendtitan.document_sources import (
    Source,
    integers,
    open_sources,
    recorded_fields,
    with_fields,
)
from blendtitan.errors import ConfigError, requires_extra
from blendtitan.files import open_file, read_text
from blendtitan.runs.find_document import find_document
from blendtitan.runs.open import OpenRun
from blendtitan.runs.slots import History
from blendtitan.storage.atomic_files import remove_file_partials, replaced_file
from blendtitan.storage.list_forms import quoted_word
from blendtitan.storage.reader import ShardIndex
from blendtitan.storage.replaceable import check_replaceable
from blendtitan.storage.writer import DOCS_SUFFIX, SOURCE_COLUMNS
from blendtitan.tables import Table
from blendtitan.visible import counted, some_of, visible, visible_logger

logger = visible_logger(__name__)

_WRITTEN_BY = "# Written by `blendtitan find`."
_SHOWN_STEPS = 8
_MOST_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class FoundDocument:
    """A document that the condition holds for."""

    prefix: Path
    document_id: int
    source: Source


@dataclass(frozen=True, slots=True)
class Reads:
    """The steps in which a run reads a document."""

    read: list[int]
    """Up to the checkpoint."""

    to_come: list[int]

    @classmethod
    def of_document(cls, run: OpenRun, found: FoundDocument) -> "Reads | None":
        """None: the document is not in the train split of the run."""
        contents = run.contents
        assert contents is not None
        shards = contents.shards_named(str(found.prefix.absolute()))
        if not shards:
            return None
        first, stop = contents.document_range(shards[0])
        if not first <= found.document_id < stop:
            return None
        document = find_document(run, shards[0], found.document_id)
        read: set[int] = set()
        to_come: set[int] = set()
        for reading in document.readings:
            if reading.place.step is not None:
                is_past = reading.window.slot < run.consumed_samples
                (read if is_past else to_come).add(reading.place.step)
        return cls(sorted(read), sorted(to_come))


def check_run(run: OpenRun) -> None:
    """Check that the steps that read a document can be found; raises ConfigError."""
    if not isinstance(run.slots, History):
        raise ConfigError(
            "--run needs order = 'blendtitan': the original's order has no inverse. Leave --run out"
        )
    if run.contents is None:
        raise ConfigError(f"--run needs the data of the run, which is not available: {run.about}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Documents to find: those for which an SQL condition holds."""

    where: str
    option: str
    """The option that asked for them, for errors and lists."""

    key: str = ""
    """The column whose values are in ``missing``. Empty: there are no such values."""

    missing: dict[str, None] = field(default_factory=dict)
    """Values that no document found so far has."""

    @classmethod
    def of_condition(cls, where: str) -> "Wanted":
        """The documents of ``--where``."""
        return cls(where, f"--where {where!r}")

    @classmethod
    def of_values(cls, path: Path, key: str) -> "Wanted":
        """Documents whose column ``key`` has a value that is a line of a file.

        Raises:
            ConfigError: The file cannot be read, or is empty.
        """
        try:
            text = read_text(path, encoding="utf-8-sig", most_bytes=_MOST_BYTES)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read as UTF-8 text ({error})") from error
        values = dict.fromkeys(line.rstrip("\r") for line in text.split("\n"))
        values.pop("", None)
        if not values:
            raise ConfigError(f"{path}: is empty, expected a value of {key!r} on each line")
        name = key.replace('"', '""')
        return cls(
            f'"{name}" IN (SELECT value FROM wanted)', f"--key {key} --values {path}", key, values
        )

    def register(self, database: Any, names: Sequence[str]) -> None:
        """Make the values known to the condition; ConfigError if there is no such column."""
        if self.key and self.key not in names:
            raise ConfigError(
                f"{self.option}: there is no column {self.key!r} of text, found "
                f"{', '.join(names)}. Record it with tokenize --keep {self.key}"
            )
        if self.key:
            database.register("wanted", pa.table({"value": pa.array(self.missing, pa.string())}))

    def note(self, found: FoundDocument) -> None:
        """Note that a document was found."""
        if self.key:
            source = found.source
            value = source.input if self.key == "input" else source.kept[self.key]
            self.missing.pop(value or "", None)


def find(prefixes: Sequence[Path], wanted: Wanted) -> Iterator[FoundDocument]:
    """The documents that are wanted, shard by shard.

    Row groups are searched one at a time, so memory is bounded.

    Raises:
        ConfigError: No shard records the sources of its documents, or the condition
            is wrong.
        CorruptShardError: The sources of a shard's documents are damaged.
    """
    recorded, keep = _recorded(prefixes)
    with requires_extra("find", "`blendtitan find`"):
        import duckdb
    # A condition must not fetch anything from the network.
    extensions = ("autoinstall_known_extensions", "autoload_known_extensions")
    with duckdb.connect(config=dict.fromkeys(extensions, "false")) as database:
        wanted.register(database, ("input", *keep))
        for prefix in recorded:
            try:
                for found in _found_in(prefix, wanted.where, keep, database):
                    wanted.note(found)
                    yield found
            except duckdb.Error as error:
                names = ", ".join((*SOURCE_COLUMNS, *keep))
                first, *_ = str(error).splitlines()
                raise ConfigError(
                    f"{wanted.option}: {first}. Expected an SQL condition about {names}, such as "
                    f"\"input LIKE '%part-3%'\". Names with dots need double quotes."
                ) from error


def _recorded(prefixes: Sequence[Path]) -> tuple[list[Path], tuple[str, ...]]:
    """The shards that record the sources of their documents, and all kept fields."""
    recorded: list[Path] = []
    keep: dict[str, None] = {}
    for prefix in prefixes:
        fields = recorded_fields(prefix, ShardIndex.open(prefix).num_documents)
        if fields is not None:
            recorded.append(prefix)
            keep |= dict.fromkeys(fields)
    missing = len(prefixes) - len(recorded)
    if not recorded:
        raise ConfigError(
            f"none of {counted(len(prefixes), 'shard')} has PREFIX{DOCS_SUFFIX}, so the sources of "
            f"documents are unknown. Tokenise the text again, with --keep for fields such as url"
        )
    if missing:
        logger.warning(
            "%d of %s have no PREFIX%s, so their documents are not found",
            *(missing, counted(len(prefixes), "shard"), DOCS_SUFFIX),
        )
    return recorded, tuple(keep)


def _found_in(
    prefix: Path, where: str, keep: Sequence[str], database: Any
) -> Iterator[FoundDocument]:
    first = 0
    with open_sources(prefix) as sources:
        for group in () if sources is None else sources.groups():
            rows = with_fields(group, keep)
            numbers = integers(np.arange(first, first + len(rows), dtype=np.int64))
            rows = rows.add_column(0, "document", numbers)
            rows = rows.add_column(0, "shard", pa.repeat(str(prefix), len(rows)))
            first += len(rows)
            database.register("documents", rows)
            query = f"SELECT * FROM documents WHERE ({where}\n) ORDER BY document"
            result = database.execute(query)
            names = [column[0] for column in result.description]
            for values in result.fetchall():
                row = dict(zip(names, values, strict=True))
                del row["shard"]
                yield FoundDocument(prefix, row.pop("document"), Source.of_row(row))


@dataclass(frozen=True, slots=True)
class FindReport:
    """Found documents, of which some are shown."""

    shown: list[FoundDocument]
    reads: list[Reads | None]
    """When the run reads each shown document. Empty without a run."""

    num_found: int

    def lines(self) -> Iterator[str | Table]:
        """A row for each shown document, and the number of all."""
        if self.shown:
            steps = ("read in steps", "will be read in steps") if self.reads else ()
            table = Table(("shard", "document", "source", *steps), texts=["shard", "source"])
            for number, found in enumerate(self.shown):
                cells = _steps_shown(self.reads[number]) if self.reads else ()
                table.add_row(str(found.prefix), found.document_id, str(found.source), *cells)
            yield table
        more = self.num_found - len(self.shown)
        shown = f", {len(self.shown):,} of them shown (--limit)" if more else ""
        yield f"{counted(self.num_found, 'document')} found{shown}"

    def json(self) -> dict[str, Any]:
        """The report as JSON."""
        documents: list[dict[str, Any]] = []
        for number, found in enumerate(self.shown):
            entry: dict[str, Any] = {"shard": str(found.prefix), "document": found.document_id}
            entry["source"] = found.source.json()
            if self.reads:
                reads = self.reads[number]
                entry["steps_read"] = None if reads is None else reads.read
                entry["steps_to_come"] = None if reads is None else reads.to_come
            documents.append(entry)
        return {"found": self.num_found, "documents": documents}


def _steps_shown(reads: Reads | None) -> tuple[str, str]:
    if reads is None:
        return "not in the train split", ""
    read, to_come = ([f"{step:,}" for step in steps] for steps in (reads.read, reads.to_come))
    return some_of(read, _SHOWN_STEPS) or "none", some_of(to_come, _SHOWN_STEPS) or "none"


def find_report(
    documents: Iterable[FoundDocument], run: OpenRun | None, *, limit: int
) -> FindReport:
    """The first documents, with the steps in which a run reads them, and the number of all."""
    shown: list[FoundDocument] = []
    number = 0
    for number, found in enumerate(documents, start=1):
        if number <= limit:
            shown.append(found)
    reads = [] if run is None else [Reads.of_document(run, found) for found in shown]
    return FindReport(shown, reads, number)


def _warn_of_another(output: Path, heading: str) -> None:
    """Warn if a list of another search is replaced, which a run may still need."""
    if not output.exists():
        return
    with open_file(output) as file:
        earlier = file.readline().decode(errors="replace").rstrip()
    if earlier != heading:
        logger.warning(
            "%s: replaces the list of another search (%s). To remove the documents of both, write "
            "each to a file of its own, and append one to the other",
            *(output, earlier.removeprefix(_WRITTEN_BY).strip()),
        )


def listed(
    documents: Iterable[FoundDocument], output: Path, wanted: Wanted, *, overwrite: bool
) -> Iterator[FoundDocument]:
    """The documents, which are written to a list for ``removed_documents`` as they pass.

    Raises:
        ConfigError: The file exists, and was not written by this command.
    """
    heading = f"{_WRITTEN_BY} {visible(wanted.option)}"
    if not overwrite:
        check_replaceable(output, "^" + _WRITTEN_BY)
        _warn_of_another(output, heading)
    remove_file_partials(output)
    with replaced_file(output) as file:
        file.write(f"{heading}\n".encode())
        for found in documents:
            name = quoted_word(str(found.prefix.absolute()))
            file.write(f"{name} {found.document_id}\n".encode())
            yield found
