"""A datatrove pipeline step that writes documents as shards.

``LocalPipelineExecutor(pipeline=[JsonlReader("text"), ..., ShardSink("tokens/web", "tokenizer")])``
"""

from collections.abc import Iterable, Iterator
from itertools import chain, count
from pathlib import Path

import numpy as np
import pyarrow as pa

from blendtitan.config import check_at_least, check_is_path
from blendtitan.document_sources import SourceWriter, listed_rows
from blendtitan.errors import ConfigError, FastTierError, InputError, requires_extra
from blendtitan.prepare.documents import DocumentBatch, Settings, encoded_texts, reject_lines
from blendtitan.prepare.input_file import REJECTS_SUFFIX, check_fields
from blendtitan.prepare.streams import BadText, Kept, Text, kept_text
from blendtitan.storage.atomic_files import write_atomically
from blendtitan.storage.record_files import record_path
from blendtitan.storage.record_writer import record_ends
from blendtitan.storage.writer import ShardWriter, remove_partials, remove_shard
from blendtitan.tokenizers import Tier, build_encoder, identity_of, load_tokenizer
from blendtitan.visible import counted

with requires_extra("datatrove", "ShardSink"):
    from datatrove.data import Document
    from datatrove.pipeline.base import PipelineStep

_FILE = "file_path"
"""The metadata in which datatrove's readers name a document's file."""


class ShardSink(PipelineStep):
    """Writes the documents of each task, in order, as one shard: ``OUTPUT/00000``, ``00001``, ...

    A shard appears only when it is complete, so a task that was killed can be run again. A task
    without documents writes no shard.

    Args:
        output: Folder of the shards, the same for all tasks. Its name is the name of the corpus.
        tokenizer: Any tokenizer that ``blendtitan tokenize --tokenizer`` accepts.
        max_rejects: Largest number of unusable texts in one task; ``RANK.rejects.jsonl`` lists
            them. More are an error.
        tier: ``fast``, ``reference`` or ``auto``: the library that encodes. The ids are the same.
        overwrite: Replace shards of other programs, which have no tokenizer record.
        keep: Metadata to record for each document beside its file and ``id``, in
            ``RANK.docs.parquet``.
    """

    name = "blendtitan shards"
    type = "WRITER"

    def __init__(
        self,
        output: str | Path,
        tokenizer: str | Path,
        *,
        max_rejects: int = 0,
        tier: Tier = "auto",
        overwrite: bool = False,
        keep: Iterable[str] = (),
    ) -> None:
        super().__init__()
        check_at_least("max_rejects", max_rejects, 0)
        check_is_path("the output", output)
        self.output = Path(output)
        self.tokenizer = Path(tokenizer)
        self.max_rejects = max_rejects
        self.tier: Tier = tier
        self.overwrite = overwrite
        self.keep = tuple(dict.fromkeys(["id", *keep]))
        check_fields(self.keep)

    def run(self, data: Iterable[Document] | None, rank: int = 0, world_size: int = 1) -> None:
        """Write the shard of one task.

        Raises:
            ConfigError: The tokenizer cannot be used, or another program's shard is in the way.
            FastTierError: The fast tier failed. Nothing was written.
            InputError: More documents are rejected than allowed. No shard was written.
        """
        prefix, where = self.output / f"{rank:05d}", f"datatrove task {rank}"
        if not self.overwrite:
            _check_replaceable(prefix)
        tokenizer = load_tokenizer(self.tokenizer)
        settings = Settings.of(tokenizer)
        encoder = build_encoder(tokenizer, self.tier)
        texts = map(self._text, count(), data or ())
        rejects: list[BadText] = []
        batches = self._checked(encoded_texts(texts, encoder, settings, where=where), rejects)
        prefix.parent.mkdir(parents=True, exist_ok=True)
        remove_partials(prefix)
        try:
            first = next((batch for batch in batches if len(batch.lens)), None)
            if first is None:
                remove_shard(prefix)
            else:
                dtype, identity = np.dtype(settings.dtype), identity_of(tokenizer, settings.eod_id)
                with (
                    ShardWriter.create(prefix, dtype=dtype, tokenizer=identity) as writer,
                    SourceWriter(writer.open_docs(), self.keep) as sources,
                ):
                    for batch in chain([first], batches):
                        writer.add_documents(batch.tokens, batch.lens)
                        sources.write(self._sources(batch))
                        self.stat_update("documents", value=len(batch.lens), unit="batch")
                        self.stat_update("tokens", value=len(batch.tokens), unit="batch")
                record_ends(prefix, settings.eod_id)
        except FastTierError as error:
            error.add_note("Run the tasks again with ShardSink(..., tier='reference').")
            raise
        path = Path(f"{prefix}{REJECTS_SUFFIX}")
        path.unlink(missing_ok=True)
        if rejects:
            write_atomically(path, reject_lines(where, rejects))

    def _text(self, place: int, document: Document) -> Text | BadText:
        text = document.text
        if not isinstance(text, str):
            reason = f"the text is of type {type(text).__name__}, expected a string"
        elif not text:
            reason = "the text is an empty string"
        else:
            try:
                text.encode()
            except UnicodeEncodeError as error:
                reason = f"the text contains an unpaired surrogate: {error.reason}"
            else:
                return place, text, self._kept(document)
        return BadText("document", place, f"document {document.id!r}: {reason}")

    def _kept(self, document: Document) -> Kept:
        """The input of a document, which datatrove's readers name, and its kept fields."""
        found = document.metadata | {"id": document.id}
        return tuple(kept_text(found.get(name)) for name in (_FILE, *self.keep))

    def _sources(self, batch: DocumentBatch) -> pa.Table:
        columns = range(1 + len(self.keep))
        inputs, *kept = ([each[at] for each in batch.kept] for at in columns)
        return listed_rows(inputs, dict(zip(self.keep, kept, strict=True)))

    def _checked(
        self, batches: Iterator[DocumentBatch], rejects: list[BadText]
    ) -> Iterator[DocumentBatch]:
        """The batches. Their rejected texts are added to ``rejects``, up to the limit."""
        for batch in batches:
            rejects += batch.bad_texts
            self.stat_update("rejects", value=len(batch.bad_texts), unit="batch")
            if len(rejects) > self.max_rejects:
                raise InputError(
                    *(text.reason for text in rejects[:20]),
                    f"{counted(len(rejects), 'document')} rejected, {self.max_rejects:,} allowed. "
                    f"Filter them out before ShardSink, or allow more with max_rejects.",
                )
            yield batch


def _check_replaceable(prefix: Path) -> None:
    # The tokenizer record is in place before the shard: without it, the shard is not ours.
    for suffix in (".idx", ".bin"):
        path = Path(f"{prefix}{suffix}")
        if path.exists() and not record_path(prefix).exists():
            raise ConfigError(
                f"{path}: exists already, and was not made by ShardSink. Choose another output, "
                f"move the shard away, or replace it with ShardSink(..., overwrite=True)."
            )
