"""Tokenizers made for a proof: a given structure, with a vocabulary that shows every cut.

With the vocabulary of a real tokenizer, most differences in how two libraries cut text are
invisible, because the pieces on both sides would not have been merged anyway. Here every pair of
neighbouring bytes is a piece, so a cut between them always changes the ids.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson

from blendtitan.tokenizers.base import Tokenizer
from blendtitan.tokenizers.fast import FastEncoder
from blendtitan.tokenizers.hf import HF_FILE, HFTokenizer
from blendtitan.tokenizers.sp import SP_FILE, SPTokenizer
from blendtitan.tokenizers.structure import META_SPACE, Structure, fast_definition, probe_model

REPRESENTATIVES = "abABls1 9\u2581^!'./\n\t\u00e9\u0301\u6f22\u00a0"
"""A character of each kind that patterns tell apart."""

_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6


@contextmanager
def probe_tiers(structure: Structure) -> Iterator[list[tuple[Tokenizer, FastEncoder]]]:
    """Both tiers of the probes of a structure.

    Raises:
        FastTierError: The fast tier does not support the structure.
    """
    with TemporaryDirectory() as folder:
        if structure.sp_model:
            probes = [_sp_probe(structure, Path(folder))]
        elif structure.definition["model"].get("byte_fallback"):
            vocab, merges = _character_vocabulary(f"{structure.definition['model']['unk_token']}")
            probes = [_hf_probe(structure, Path(folder), vocab, merges)]
        else:
            probes = [
                _hf_probe(structure, Path(folder) / str(is_reversed), *_byte_pairs(is_reversed))
                for is_reversed in (False, True)
            ]
        yield [(probe, FastEncoder.of(fast_definition(probe))) for probe in probes]


def _sp_probe(structure: Structure, folder: Path) -> Tokenizer:
    """Text that no piece holds is bytes, so each character that is normalised away is seen."""
    pieces = {"<unk>": _UNKNOWN, "<s>": _CONTROL, "</s>": _CONTROL}
    pieces |= dict.fromkeys(map("<0x{:02X}>".format, range(256)), _BYTE)
    path = folder / SP_FILE
    path.write_bytes(probe_model(structure, pieces | {META_SPACE: _NORMAL}))
    return SPTokenizer(path)


def _hf_probe(
    structure: Structure, folder: Path, vocab: dict[str, int], merges: list[list[str]]
) -> Tokenizer:
    model: dict[str, Any] = structure.definition["model"] | {"vocab": vocab, "merges": merges}
    folder.mkdir(exist_ok=True)
    path = folder / HF_FILE
    path.write_bytes(orjson.dumps(structure.definition | {"model": model, "added_tokens": []}))
    return HFTokenizer(path)


def _byte_pairs(is_reversed: bool) -> tuple[dict[str, int], list[list[str]]]:
    """All bytes and all pairs of them; pairs that span two characters are merged first.

    Among pairs of ASCII characters, the order decides which cuts are seen, so there are two.
    """
    letters = byte_letters()
    pairs = sorted(
        product(range(256), range(256)),
        key=lambda pair: _pair_rank(pair[0], pair[1], is_reversed=is_reversed),
    )
    merges = [[letters[left], letters[right]] for left, right in pairs]
    return {piece: at for at, piece in enumerate([*letters, *map("".join, merges)])}, merges


def _pair_rank(left: int, right: int, *, is_reversed: bool) -> tuple[int, int]:
    at = left << 8 | right
    is_end, is_start = not left >= 0xC0, not 0x80 <= right < 0xC0
    if left < 0x80 and right < 0x80:
        return 1, -at if is_reversed else at
    return (0 if is_end and is_start else 2), at


def _character_vocabulary(unknown: str) -> tuple[dict[str, int], list[list[str]]]:
    """Single bytes, and characters of each kind with all pairs of them."""
    merges = [[left, right] for left, right in product(REPRESENTATIVES, repeat=2)]
    pieces = [unknown, *map("<0x{:02X}>".format, range(256)), *REPRESENTATIVES]
    pieces += map("".join, merges)
    return {piece: at for at, piece in enumerate(dict.fromkeys(pieces))}, merges


def byte_letters() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary, as GPT-2 defined it."""
    shown = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = iter(range(256, 512))
    return [chr(byte if byte in shown else next(hidden)) for byte in range(256)]
