"""The EOD of a shard that nobody named: what the records beside the shard say."""

from pathlib import Path

from blendtitan.errors import ShardError
from blendtitan.storage.ends import read_ends
from blendtitan.storage.reader import FileSignature, ShardIndex
from blendtitan.storage.record_files import read_record


def recorded_eod(prefix: Path, index: ShardIndex, stamp: FileSignature | None) -> int | None:
    """The token that ends documents, by the record of the tokenizer, else by that of the ends.

    None: neither is there and describes the shard, or neither names a token that ends documents.
    """
    try:
        record = read_record(prefix)
    except ShardError:  # What is wrong with it is reported with the other problems.
        record = None
    eod_id = record and record.tokenizer.eod_id
    size = {"documents": index.num_documents, "tokens": index.num_tokens}
    if record is not None and eod_id is not None and record.describes(**size):
        return eod_id
    ends = stamp and read_ends(str(prefix), stamp)
    return None if ends is None or ends.lacks_eod else ends.eod_id
