"""``blendtitan index``: an ``.idx`` for the token files of other programs, which stay as they are.

The ``.idx`` lies in the output folder, and beside it a link named ``PREFIX.bin`` to the tokens,
unless that is their own name. A header of the file is skipped, because the first pointer of an
``.idx`` may be larger than 0.
"""

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendtitan.config import check_at_least, check_is_path
from blendtitan.errors import ConfigError, CorruptShardError, ShardError
from blendtitan.shards.document_lengths import DocumentLengths
from blendtitan.shards.encoding import Encoding, compare_encoding, encoding_problems
from blendtitan.shards.index_documents import Documents, IndexSettings, find_documents
from blendtitan.shards.index_origins import has_sources, record_sources, remove_sources
from blendtitan.shards.index_sources import TokenFile, find_token_files, recognise
from blendtitan.storage.atomic_files import (
    remove_file_partials,
    replaced_file,
    write_atomically,
    writing,
)
from blendtitan.storage.index_arrays import IndexArrays, encode_index
from blendtitan.storage.index_format import IndexHeader
from blendtitan.storage.list_forms import corpus_in_folder
from blendtitan.storage.reader import FileSignature, OpenFile, ShardIndex, file_signature
from blendtitan.storage.record_files import TokenizerRecord, read_record, record_path
from blendtitan.storage.record_writer import encode_record, write_ends
from blendtitan.storage.records import ENDS_SUFFIX, DocumentEnds, read_ends
from blendtitan.storage.writer import docs_path
from blendtitan.tables import Table
from blendtitan.tokenizers.router import identity_of
from blendtitan.visible import counted

_COMPARED_DOCUMENTS = 100
_SHORT_TOKENS, _LONG_TOKENS = 16, 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexedFile:
    """The outcome for one token file. With an error, nothing was written for it."""

    path: Path
    prefix: Path
    num_bytes: int
    num_tokens: int = 0
    lengths: DocumentLengths = field(default_factory=DocumentLengths)
    notes: tuple[str, ...] = ()
    was_there: bool = False
    """Whether an earlier call wrote its ``.idx``."""

    error: str | None = None

    @staticmethod
    def totals(files: Sequence["IndexedFile"]) -> Iterator[tuple[int, int, int]]:
        """Bytes, documents and tokens of all files, summed when they are asked for."""
        yield (
            sum(file.num_bytes for file in files),
            sum(file.lengths.num_documents for file in files),
            sum(file.num_tokens for file in files),
        )


class PlannedFile(NamedTuple):
    """A token file and its future shard."""

    source: TokenFile
    prefix: Path
    finished: IndexedFile | None
    """The outcome of an earlier call with the same settings, if there was one."""


def plan_index(
    inputs: Sequence[Path], output: Path, settings: IndexSettings, *, overwrite: bool = False
) -> list[PlannedFile]:
    """Find all token files, and check their headers and sizes. Nothing is written.

    Args:
        inputs: Token files, and folders of them, whose files keep their relative paths.
        output: The folder of the ``.idx`` files.
        settings: Description of the tokens.
        overwrite: Whether an ``.idx`` of another program or other settings is replaced.

    Raises:
        ConfigError: An input or a setting cannot be used, or an ``.idx`` would be overwritten.
        ShardError: A file is of another kind, or cut short.
    """
    check_is_path("the output", output)
    planned: list[PlannedFile] = []
    for path, name in find_token_files(inputs):
        source, prefix = recognise(path, settings.dtype), output / name
        if source.ends_path is None and settings.separator is None:
            raise ConfigError(
                f"{path}: the file does not say where documents end. Give --eod-id, the id that "
                f"ends each document; --bos-id, if an id begins each; or --tokenizer, for its EOS."
            )
        finished = None if overwrite else _finished(source, prefix, settings)
        if finished is None:
            _check_free(source, prefix, overwrite=overwrite)
        planned.append(PlannedFile(source, prefix, finished))
    return planned


def index(
    planned: Sequence[PlannedFile], settings: IndexSettings, *, threads: int | None = None
) -> Iterator[IndexedFile]:
    """Write the ``.idx`` of each file; yields the files in order.

    A file whose tokens cannot be used does not stop the others. ``threads`` files are read at
    once; None: two per core, so that one is read while another is searched.
    """
    if threads is not None:
        check_at_least("threads", threads, 1)

    def outcome(item: PlannedFile) -> IndexedFile:
        try:
            if item.finished is None:
                return _index_file(item.source, item.prefix, settings)
            return _with_sources(item.source, item.finished)
        except ShardError as error:
            return IndexedFile(
                path=item.source.path,
                prefix=item.prefix,
                num_bytes=item.source.num_bytes,
                error=str(error),
            )

    with ThreadPoolExecutor(threads or 2 * (os.cpu_count() or 1)) as pool:
        yield from pool.map(outcome, planned)


def _index_file(source: TokenFile, prefix: Path, settings: IndexSettings) -> IndexedFile:
    before = os.stat(source.path)
    documents = find_documents(source, settings)
    after = os.stat(source.path)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise CorruptShardError(
            f"{source.path}: changed while it was read. Index it again when no program writes it."
        )
    with writing(prefix.parent):
        prefix.parent.mkdir(parents=True, exist_ok=True)
    with _named_bin(source, prefix):
        _write_index(source, prefix, documents, settings)
    notes = record_sources(source, prefix, documents.lens)
    if documents.ends is not None:
        signature = FileSignature.of_files(os.stat(f"{prefix}.idx"), after)
        write_ends(prefix, documents.ends, signature)
    return _outcome(source, prefix, documents.lens, documents.ends, notes=notes)


def _with_sources(source: TokenFile, finished: IndexedFile) -> IndexedFile:
    """A finished shard; the sources of its documents are recorded if that is missing."""
    if docs_path(finished.prefix).exists() or not has_sources(source):
        return finished
    notes = record_sources(source, finished.prefix, IndexArrays.open(finished.prefix).lens)
    return replace(finished, notes=(*notes, *finished.notes))


@contextmanager
def _named_bin(source: TokenFile, prefix: Path) -> Generator[None]:
    """Let ``PREFIX.bin`` lead to the tokens. An error in the block takes a new link away."""
    bin_path = Path(f"{prefix}.bin")
    # An old .idx must never describe the tokens of another file.
    for suffix in (".idx", ENDS_SUFFIX):
        Path(f"{prefix}{suffix}").unlink(missing_ok=True)
    record_path(prefix).unlink(missing_ok=True)
    remove_sources(source, prefix)
    is_new = not (bin_path.exists() and bin_path.samefile(source.path))
    if is_new:
        bin_path.unlink(missing_ok=True)
        is_beside = bin_path.parent.resolve() == source.path.parent.resolve()
        with writing(bin_path):
            bin_path.symlink_to(source.path.name if is_beside else source.path.absolute())
    try:
        yield
    except BaseException:
        if is_new:
            bin_path.unlink(missing_ok=True)
        raise


def _write_index(
    source: TokenFile, prefix: Path, documents: Documents, settings: IndexSettings
) -> None:
    idx_path, lens = Path(f"{prefix}.idx"), documents.lens
    remove_file_partials(idx_path)
    with replaced_file(idx_path) as file:
        file.writelines(encode_index(lens, dtype=source.dtype, header_bytes=source.header_bytes))
        if settings.tokenizer is not None:
            file.flush()
            opened = ShardIndex(
                *(prefix, IndexHeader(source.dtype, len(lens), len(lens)), source.num_tokens),
                OpenFile.open(file.name),
                start=source.start,
            )
            _check_and_record(opened, settings)
    ShardIndex.open(prefix)


def _check_and_record(opened: ShardIndex, settings: IndexSettings) -> None:
    """Record the tokenizer, if it gives the texts of some documents their ids."""
    assert settings.tokenizer is not None
    encoding = Encoding(settings.tokenizer, settings.separator, _COMPARED_DOCUMENTS)
    compared = compare_encoding(opened, encoding)
    problems = list(encoding_problems(opened, encoding, compared))
    if not problems and compared.unjudged == compared.documents:
        problems = [
            f"{opened.prefix}: {settings.tokenizer.path} decodes and encodes none of "
            f"{compared.documents:,} documents to the same text, so it is probably not the "
            f"tokenizer of this file. If you are sure that it is, give --eod-id and --vocab-size "
            f"instead of --tokenizer."
        ]
    if problems:
        raise ShardError(*problems)
    eod_id = None if settings.bos_id is not None else settings.separator
    identity = identity_of(settings.tokenizer, eod_id)
    record = TokenizerRecord(identity, opened.num_documents, opened.num_tokens)
    write_atomically(record_path(opened.prefix), encode_record(record))


def _finished(source: TokenFile, prefix: Path, settings: IndexSettings) -> IndexedFile | None:
    """The outcome of an earlier call with these settings. None: there was no such call."""
    signature = file_signature(str(prefix))
    if signature is None or not Path(f"{prefix}.bin").samefile(source.path):
        return None
    try:
        opened = ShardIndex.open(prefix)
        record = read_record(prefix)
        ends = read_ends(str(prefix), signature, settings.separator)
        listed = source.document_lens()
        lens = IndexArrays.open(prefix).lens
    except ShardError:
        return None
    is_same = (opened.dtype, opened.start) == (source.dtype, source.start)
    if listed is not None:
        is_same = is_same and np.array_equal(listed, lens)
    elif ends is None:
        is_same = False
    else:
        # All documents but one, at the end or beginning of the file, have the separator.
        found = ends.num_eod if settings.bos_id is None else ends.num_begin
        is_same = is_same and found >= len(lens) - 1
    if settings.tokenizer is not None:
        made_by = identity_of(settings.tokenizer, None)
        is_same = is_same and record is not None and record.tokenizer.gives_ids_of(made_by)
    if not is_same:
        return None
    return _outcome(source, prefix, lens, ends, was_there=True)


def _check_free(source: TokenFile, prefix: Path, *, overwrite: bool) -> None:
    """Check that no shard, and no file but an earlier link, would be replaced."""
    own_idx = source.path.with_name(f"{source.path.stem}.idx")
    is_own = Path(f"{prefix}.idx").absolute() == own_idx.absolute()
    if source.path.suffix == ".bin" and own_idx.exists() and not (is_own and overwrite):
        raise ConfigError(
            f"{source.path}: {own_idx.name} is beside it, so it is a shard already. Use it as it "
            f"is (blendtitan stats). If it is in an older format, convert it (blendtitan convert). "
            f"To replace its .idx, index it in its own folder with --overwrite."
        )
    bin_path = Path(f"{prefix}.bin")
    is_same = bin_path.exists() and bin_path.samefile(source.path)
    if os.path.lexists(bin_path) and not is_same and not (overwrite and bin_path.is_symlink()):
        what = "a link to another file" if bin_path.is_symlink() else "another file"
        raise ConfigError(
            f"{bin_path}: is {what}, but a link to {source.path} must be made here. Choose "
            f"another output folder."
        )
    if os.path.lexists(f"{prefix}.idx") and not overwrite:
        raise ConfigError(
            f"{prefix}.idx: exists already, and was not made by this command with these settings. "
            f"Choose another output folder, or give --overwrite to replace it."
        )


def _outcome(
    source: TokenFile,
    prefix: Path,
    lens: NDArray[np.int32],
    ends: DocumentEnds | None,
    *,
    was_there: bool = False,
    notes: Iterable[str] = (),
) -> IndexedFile:
    lengths = DocumentLengths()
    lengths.add(lens.astype(np.int64))
    return IndexedFile(
        path=source.path,
        prefix=prefix,
        num_bytes=source.num_bytes,
        num_tokens=source.num_tokens,
        lengths=lengths,
        notes=(*notes, *_notes(source, len(lens), ends)),
        was_there=was_there,
    )


def _notes(source: TokenFile, num_documents: int, ends: DocumentEnds | None) -> Iterator[str]:
    """Sentences about documents that may not be what the user expects."""
    mean = source.num_tokens / num_documents
    if not _SHORT_TOKENS <= mean <= _LONG_TOKENS:
        yield (
            f"{source.path}: its {counted(num_documents, 'document')} have {mean:,.0f} tokens on "
            f"average. If that is not plausible, check the id that separates documents, and the "
            f"token type."
        )
    if ends is not None and ends.is_mixed:
        missing = ends.num_filled - ends.num_eod
        yield (
            f"{source.path}: {missing:,} of {counted(num_documents, 'document')} "
            f"{'does' if missing == 1 else 'do'} not end in the id {ends.eod_id}. Train with "
            f"append_eod = false, which reads the tokens as they are."
        )


def index_table(files: Sequence[IndexedFile], output: Path) -> Table:
    """A row for each folder of shards, which is a corpus."""
    headings = ("corpus", "files", "documents", "tokens", "shortest", "median", "longest")
    table = Table(headings)
    by_corpus: dict[str, list[IndexedFile]] = {}
    for file in files:
        by_corpus.setdefault(corpus_in_folder(file.prefix, output), []).append(file)
    for corpus, members in by_corpus.items():
        lengths = DocumentLengths()
        for member in members:
            lengths.update(member.lengths)
        quantiles = [lengths.quantile(fraction) for fraction in (0, 0.5, 1)]
        num_tokens = sum(member.num_tokens for member in members)
        table.add_row(corpus, len(members), lengths.num_documents, num_tokens, *quantiles)
    return table


def check_indexed(files: Sequence[IndexedFile]) -> None:
    """Check that every file was indexed; raises ShardError with all reasons."""
    errors = [file.error for file in files if file.error is not None]
    if errors:
        raise ShardError(
            *errors, f"{len(errors):,} of {counted(len(files), 'token file')} could not be indexed"
        )
