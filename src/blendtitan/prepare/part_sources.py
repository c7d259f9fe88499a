"""The sources of documents while their shard is made: a file for each job, then one for the shard.

The file of a job is an Arrow stream with the place and the kept fields of each document.
"""

from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from blendtitan.document_sources import SourceWriter, integers, one_input, source_rows
from blendtitan.errors import CorruptShardError
from blendtitan.files import open_file
from blendtitan.prepare.plan import Job
from blendtitan.prepare.streams import Kept


class PartSources:
    """Writes the sources of one job's documents to an open file."""

    def __init__(self, file: Any, keep: Sequence[str]) -> None:
        columns = [("place", pa.int64()), *((name, pa.string()) for name in keep)]
        self._schema = pa.schema(columns)
        self._stream = pa.ipc.new_stream(pa.PythonFile(file, "w"), self._schema)

    def write(self, places: Sequence[int], kept: Sequence[Kept]) -> None:
        """Append documents."""
        if not places:
            return
        fields = zip(*kept, strict=True) if len(self._schema) > 1 else ()
        texts = (pa.array(field, pa.string()) for field in fields)
        columns = [integers(np.array(places, np.int64)), *texts]
        self._stream.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))

    def close(self) -> None:
        """Mark the end of the stream."""
        self._stream.close()


def join_sources(jobs: Sequence[Job], file: BinaryIO) -> None:
    """Write the sources of a shard's documents from those of its jobs."""
    shard = jobs[0].shard
    location, unit, keep = shard.input.location, shard.input.format.unit, shard.options.keep
    with SourceWriter(file, keep) as writer:
        for job in jobs:
            path = job.path("docs")
            try:
                with open_file(path) as part, pa.ipc.open_stream(part) as stream:
                    for batch in stream:
                        kept = {name: batch.column(name) for name in keep}
                        inputs, places = one_input(location, len(batch)), batch.column("place")
                        writer.write(source_rows(inputs, kept, unit=unit, places=places))
            except pa.ArrowException as error:
                raise CorruptShardError(
                    f"{path}: the sources of a job's documents cannot be read ({error}). Delete "
                    f"the file, and run again."
                ) from error
