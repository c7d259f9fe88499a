"""Checks that held-out data is not trained on."""

from collections import defaultdict

from blendtitan.errors import ConfigError
from blendtitan.storage.catalog import Catalog
from blendtitan.storage.reader import OpenFile
from blendtitan.storage.records import differ
from blendtitan.visible import counted

_COMPARED_BYTES = 1 << 20


def check_held_out(name: str, held_out: Catalog, training: Catalog, *, allow_overlap: bool) -> None:
    """Check a validation set that is read beside the splits of a blend.

    A shard is recognised, under any name, by its numbers of sequences, documents and tokens, and
    by its checksum; without a checksum, by its first tokens.

    Args:
        name: Name of the set.
        held_out: Its shards; all documents are held out.
        training: The shards of the blend.
        allow_overlap: Check the name only.

    Raises:
        ConfigError: A corpus has the set's name, or training reads documents of the set.
    """
    if name in training.corpora:
        raise ConfigError(
            f"validation set {name!r}: a corpus of the blend has this name, and their losses would "
            f"have one name too. Choose another."
        )
    if allow_overlap:
        return
    alike: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for shard, facts in enumerate(_facts(training)):
        alike[facts].append(shard)
    for shard, facts in enumerate(_facts(held_out)):
        for other in alike.get(facts, ()):
            num_trained = int(training.document_cuts[other, 1])
            if num_trained and _is_same(held_out, shard, training, other):
                mine, theirs = held_out.prefixes[shard], training.prefixes[other]
                what = "is" if mine == theirs else f"holds the documents of {theirs}, which is"
                raise ConfigError(
                    f"validation set {name!r}: shard {mine} {what} also read for training: "
                    f"{num_trained:,} of its {counted(facts[-2], 'document')}. Choose other "
                    f"shards, or set allow_overlap = true in the set."
                )


def _facts(catalog: Catalog) -> list[tuple[int, ...]]:
    """Token type and numbers of sequences, documents and tokens of each shard."""
    columns = (
        *(catalog.dtype_codes, catalog.num_sequences),
        *(catalog.document_cuts[:, 3], catalog.token_cuts[:, 3] - catalog.token_cuts[:, 0]),
    )
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _is_same(one: Catalog, shard: int, other: Catalog, place: int) -> bool:
    """Whether shards with equal facts hold equal tokens."""
    checksums = one.checksums[shard].tobytes(), other.checksums[place].tobytes()
    if all(map(any, checksums)):
        return not differ(*checksums)
    return _first_bytes(one.prefixes[shard]) == _first_bytes(other.prefixes[place])


def _first_bytes(prefix: str) -> bytes:
    file = OpenFile.open(f"{prefix}.bin")
    return file.read(min(file.num_bytes, _COMPARED_BYTES), at=0)
