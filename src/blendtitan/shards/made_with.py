"""Which tokenizers made shards: by their records, and compared with a given tokenizer."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from blendtitan.errors import ShardError
from blendtitan.identity import TokenizerIdentity
from blendtitan.shards.verify import VerifiedShard
from blendtitan.storage.list_forms import named_shards
from blendtitan.tokenizer_check.run import MadeShard, check_shards
from blendtitan.tokenizers import Tokenizer


def verify_tokenizers(
    inputs: Sequence[Path],
    shards: Sequence[VerifiedShard],
    tokenizer: Tokenizer | None,
    *,
    eod_id: int | None,
) -> None:
    """Add to verified shards the problems with the tokenizer that made them.

    Args:
        inputs: Prefixes, folders of shards and file lists. Each folder or list should be of one
            tokenizer.
        shards: All of their shards.
        tokenizer: What they should have been made with. None: any.
        eod_id: Token that should end their documents; None: not compared.
    """
    of_prefix = {shard.prefix: shard for shard in shards}
    for members in _groups(inputs):
        known = [of_prefix[prefix] for prefix in members if of_prefix[prefix].tokenizer is not None]
        for shard, first in _others(known):
            shard.problems.append(
                f"{shard.prefix}: made with {shard.tokenizer}, while {first.prefix} was made with "
                f"{first.tokenizer}. Shards that are read together need one tokenizer: tokenise "
                f"them again with it, or read them apart."
            )
    if tokenizer is not None:
        _compare(shards, tokenizer, eod_id)


def _compare(shards: Sequence[VerifiedShard], tokenizer: Tokenizer, eod_id: int | None) -> None:
    """Compare records with a tokenizer, and a sample of the tokens of shards without one."""
    usable = {str(shard.prefix): shard for shard in shards if shard.tokens is not None}
    made = [
        MadeShard(prefix, shard.corpus, shard.index.num_documents, shard.index.num_tokens)
        for prefix, shard in usable.items()
        if shard.index is not None
    ]
    try:
        findings = check_shards(made, tokenizer, eod_id=eod_id)
    except ShardError as error:
        # Each shard was read before: one has just been changed.
        for shard in usable.values():
            shard.problems.append(f"the tokenizer could not be compared: {error}")
        return
    for prefix, reason in findings.mismatches.items():
        usable[prefix].problems.append(
            f"{prefix}: {reason}; compared with {findings.tokenizer}. Name the tokenizer that made "
            f"the shard, or tokenise it again."
        )
    for prefix, reason in findings.unclear.items():
        usable[prefix].notes.append(
            f"{prefix}: it is not known whether this tokenizer made it ({reason})"
        )


def _groups(inputs: Sequence[Path]) -> Iterator[list[Path]]:
    """The shards of each folder and list, then those that are named one by one together."""
    single: list[Path] = []
    for path in inputs:
        members = [shard.prefix for shard in named_shards([path])]
        if members == [path]:
            single += members
        else:
            yield members
    yield single


def _others(shards: Sequence[VerifiedShard]) -> Iterator[tuple[VerifiedShard, VerifiedShard]]:
    """Shards of another tokenizer than most have, each with the first of the majority."""
    alike: list[tuple[TokenizerIdentity, list[VerifiedShard]]] = []
    for shard in shards:
        assert shard.tokenizer is not None
        same = next((of for own, of in alike if own.is_same(shard.tokenizer)), None)
        if same is None:
            alike.append((shard.tokenizer, [shard]))
        else:
            same.append(shard)
    most = max(alike, key=lambda kind: len(kind[1]), default=None)
    for kind in alike:
        if most is not None and kind is not most:
            yield from ((shard, most[1][0]) for shard in kind[1])
