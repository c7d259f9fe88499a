"""The samples that read removed documents, and proof that none does any more.

``blendtitan removed`` finds every sample that holds part of a removed document, from the inverse of
the order, and reads those from its removal on as training reads them.
"""

from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from blendtitan.config import SPLITS
from blendtitan.dataset.blended import BlendedDataset
from blendtitan.dataset.documents import IGNORE_INDEX
from blendtitan.errors import ConfigError, ResumeError
from blendtitan.history.removals import continued
from blendtitan.history.run import in_phases, phases_of
from blendtitan.runs.find_document import Document, Reading, find_document
from blendtitan.runs.open import OpenRun, RunConfig, data_of_run
from blendtitan.runs.slots import History
from blendtitan.tables import Table
from blendtitan.visible import counted


@dataclass(frozen=True, kw_only=True, slots=True)
class RemovedDocument:
    """One document of the list."""

    document: Document
    num_checked: int
    """Samples from its removal on that were read, and hold EOD in its place."""
    wrong_slots: tuple[int, ...]
    """Slots that still read it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RemovedReport:
    """The removed documents of a run."""

    about: str
    list_path: str
    documents: tuple[RemovedDocument, ...]
    """Those of the training split."""
    num_others: int
    """Removed documents of other splits."""

    @property
    def num_checked(self) -> int:
        """Samples that were read again."""
        return sum(each.num_checked for each in self.documents)

    def lines(self) -> Iterator[str | Table]:
        """One row for each sample that read a removed document, then what was proved."""
        yield f"{self.list_path}, in {self.about}:"
        table = Table(
            ["shard", "document", "removed from slot", "slot", "step", "sample", "epoch", "tokens"],
            texts=["shard"],
        )
        for each in self.documents:
            document = each.document
            known = (document.prefix, document.document_id, document.removed_from)
            for reading in document.readings:
                table.add_row(*known, *_cells(reading))
            if not document.readings:
                table.add_row(*known, *(None,) * 5)
        yield from (table, "", self.verdict())

    def verdict(self) -> str:
        """What was proved, in words."""
        read = sum(bool(each.document.readings) for each in self.documents)
        later = sum(len(each.document.left_out) for each in self.documents)
        text = (
            f"{read:,} of {counted(len(self.documents), 'removed document')} had been read before "
            f"the removal. "
        )
        if not later:
            text += "No later sample of the run would contain one of them."
        else:
            text += (
                f"{counted(later, 'later sample')} of the run would contain one of them. Of these, "
                f"{self.num_checked:,} were read again now: each has EOD in its place, and no "
                f"labels there."
            )
        if later > self.num_checked:
            text += " The others belong to phases that have ended, and cannot be read again."
        if self.num_others:
            others = counted(self.num_others, "more removed document")
            text += f" {others} in the other splits: never trained on."
        return text

    def json(self) -> dict[str, Any]:
        """The same as JSON."""
        return {
            "list": self.list_path,
            "documents": [
                {
                    **each.document.json(),
                    "later_samples": len(each.document.left_out),
                    "checked_samples": each.num_checked,
                    "wrong_slots": list(each.wrong_slots),
                }
                for each in self.documents
            ],
            "documents_of_other_splits": self.num_others,
        }

    def check(self) -> None:
        """Check that no document is read any more.

        Raises:
            ResumeError: A sample still has tokens or labels of one.
        """
        for each in self.documents:
            if each.wrong_slots:
                raise ResumeError(
                    f"{each.document.prefix}: document {each.document.document_id:,} is removed "
                    f"from slot {each.document.removed_from:,} on, but slot "
                    f"{each.wrong_slots[0]:,} still reads it"
                )


def _cells(reading: Reading) -> tuple[Any, ...]:
    step, sample, *_ = astuple(reading.place)
    spans = ", ".join(f"{first:,} to {stop:,}" for first, stop in reading.tokens)
    return reading.window.slot, step, sample, reading.window.epoch, spans


def removed_report(run: OpenRun) -> RemovedReport:
    """Find the samples of a run that hold removed documents, and read those from then on again.

    Raises:
        ConfigError: The run removes no documents, or its data is not known.
        ResumeError: The list lacks documents that were removed before.
        ShardError: A shard is missing or damaged.
    """
    if run.config is None or run.contents is None:
        raise ConfigError(
            f"listing removed documents needs the configuration and data of the run: {run.about}"
        )
    path = run.config.blend.removed_documents
    if path is None:
        raise ConfigError(
            f"{run.config.path}: blendcorpus.removed_documents is not set. Set it, or name a list "
            f"with --list"
        )
    dataset = _dataset(run, run.config)
    contents, found, num_others = run.contents, list[RemovedDocument](), 0
    for shard, number in contents.removed:
        first, stop = contents.document_range(shard)
        if not first <= number < stop:
            num_others += 1
            continue
        document = find_document(run, shard, number)
        checked = [each for each in document.left_out if each.window.slot >= dataset.first_slot]
        wrong = [each.window.slot for each in checked if not _is_left_out(dataset, each)]
        found.append(
            RemovedDocument(document=document, num_checked=len(checked), wrong_slots=tuple(wrong))
        )
    return RemovedReport(
        about=run.about, list_path=str(Path(path)), documents=tuple(found), num_others=num_others
    )


def _dataset(run: OpenRun, config: RunConfig) -> BlendedDataset:
    """The training split as the run reads it when it resumes now."""
    if not isinstance(run.slots, History):
        raise ConfigError(
            "documents can be found only with order = 'blendtitan': the original's order has no "
            "inverse"
        )
    train = data_of_run(config).train
    assert isinstance(train, BlendedDataset)
    one, other = phases_of(train)[-1], run.slots.phases[-1]
    ids = [{name: each.ids for name, each in phase.corpora.items()} for phase in (one, other)]
    if ids[0] != ids[1] or one.seq_len != other.seq_len or run.slots.split != SPLITS[0]:
        raise ConfigError(
            f"{config.path}: the data or the sequence length differs from that of {run.about}. "
            f"Restore it, or start the run once with the new one"
        )
    dataset, _ = continued(
        in_phases(train, run.slots.phases, skipped=run.slots.skipped),
        run.removals,
        run.consumed_samples,
        may_change=config.blend.on_change != "error",
    )
    assert isinstance(dataset, BlendedDataset)
    return dataset


def _is_left_out(dataset: BlendedDataset, reading: Reading) -> bool:
    """Whether a sample has EOD, and no labels, where it would have tokens of a document."""
    sample, eod_id = dataset[reading.window.slot], dataset.config.eod_token_id
    for place, (first, stop) in zip(reading.places, reading.tokens, strict=True):
        end = place + stop - first
        is_eod = sample.input_ids[place:end] == eod_id
        has_no_label = sample.labels[max(0, place - 1) : end] == IGNORE_INDEX
        if not (is_eod.all() and has_no_label.all()):
            return False
    return True
