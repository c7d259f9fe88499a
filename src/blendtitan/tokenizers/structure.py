"""The structure of a tokenizer: everything that decides its ids, except its vocabulary.

A proof that both tiers cut and normalise text in the same way holds for every tokenizer of one
structure. The vocabulary is checked for each tokenizer. A ``FastTierError`` gives the reason if
the proof cannot cover a tokenizer.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import orjson

from blendtitan.errors import FastTierError
from blendtitan.tokenizers.base import Tokenizer, read_bytes
from blendtitan.tokenizers.sp import SPTokenizer
from blendtitan.tokenizers.tekken import TekkenTokenizer

LIBRARIES = ("gigatoken", "tokenizers", "sentencepiece")

META_SPACE = "\u2581"
"""The character that stands for a space in SentencePiece vocabularies."""

_COVERED = {
    "normalizer": {"NFC", "NFD", "NFKC", "NFKD", "Prepend", "Replace"},
    "pre_tokenizer": {"ByteLevel", "Split", "Digits", "Metaspace"},
}


@dataclass(frozen=True, slots=True)
class Structure:
    """The part of a tokenizer for which the two tiers are proven equal."""

    definition: dict[str, Any]
    """The ``tokenizer.json`` that the fast tier reads, without vocabulary and added tokens."""

    sp_model: bytes = b""
    """A SentencePiece model without its pieces. Empty for a ``tokenizer.json``."""

    @property
    def composes_marks(self) -> bool:
        """Whether text is converted to one of Unicode's normal forms."""
        return any(kind.startswith("NF") for kind in _types(self.definition.get("normalizer")))

    @property
    def key(self) -> str:
        """A hash that two tokenizers share if their structures are equal."""
        parts = [_canonical(self.definition.get(n)) for n in ("normalizer", "pre_tokenizer")]
        model = {name: value for name, value in self.definition["model"].items() if value}
        described = [*parts, model, self.sp_model.hex()]
        return hashlib.sha256(orjson.dumps(described, option=orjson.OPT_SORT_KEYS)).hexdigest()


def library_versions() -> dict[str, str]:
    """The installed versions of the libraries whose ids a proof compares."""
    versions: dict[str, str] = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "none"
    return versions


def fast_definition(tokenizer: Tokenizer) -> dict[str, Any]:
    """The ``tokenizer.json`` of a tokenizer, converted if it is a SentencePiece model."""
    if isinstance(tokenizer, TekkenTokenizer):
        raise FastTierError("gigatoken cannot read Tekken files.")
    content = read_bytes(tokenizer.path)
    if not isinstance(tokenizer, SPTokenizer):
        return orjson.loads(content)
    from gigatoken._load.sentencepiece import sentencepiece_to_tokenizer_json

    return orjson.loads(sentencepiece_to_tokenizer_json(content))


def structure_of(tokenizer: Tokenizer, definition: Mapping[str, Any]) -> Structure:
    """The structure of a tokenizer."""
    # ignore_merges concerns words that are pieces, which are all checked for each tokenizer.
    dropped = {"vocab", "merges", "ignore_merges"}
    if not definition["model"].get("byte_fallback"):
        dropped |= {"unk_token", "fuse_unk"}
    model = {k: v for k, v in definition["model"].items() if k not in dropped}
    kept = {name: definition.get(name) for name in _COVERED}
    structure = Structure(kept | {"model": model}, _bare_model(tokenizer))
    problem = next(_uncovered(structure), None)
    if problem is not None:
        raise FastTierError(f"{problem}.")
    return structure


def read_symbols(definition: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Added tokens that are read from text: neither control symbols nor ordinary vocabulary."""
    return [added for added in definition.get("added_tokens") or [] if not added.get("special")]


def symbol_markers(tokenizer: Tokenizer, definition: Mapping[str, Any]) -> tuple[str, ...]:
    """Strings such that every text with a symbol contains at least one of them."""
    markers = [
        marker
        for symbol in read_symbols(definition)
        for marker in _markers(tokenizer, definition, symbol)
    ]
    return tuple(dict.fromkeys(markers))


def _markers(
    tokenizer: Tokenizer, definition: Mapping[str, Any], symbol: Mapping[str, Any]
) -> Iterator[str]:
    content = symbol["content"]
    # No normaliser that the proof covers changes such a string, or makes another equal to it.
    is_plain = content.isascii() and " " not in content
    if isinstance(tokenizer, SPTokenizer):
        words = [word for word in content.split(META_SPACE) if word]
        if words:
            yield max(words, key=len)
        elif len(content) > 1 and "Prepend" not in _types(definition.get("normalizer")):
            yield from ("  ", META_SPACE)
        else:
            raise FastTierError(f"its symbol {content!r} can be in every text.")
    elif symbol.get("normalized") and definition.get("normalizer") and not is_plain:
        raise FastTierError(f"its symbol {content!r} is looked for after normalising.")
    else:
        yield content


def _uncovered(structure: Structure) -> Iterator[str]:
    """Parts of a structure that the proof does not cover."""
    model = structure.definition["model"]
    if model.get("type") != "BPE":
        yield f"its model is {model.get('type')}, expected BPE"
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            yield f"its model sets {name}"
    if structure.sp_model:
        if _parsed(structure.sp_model).normalizer_spec.precompiled_charsmap:
            yield "its SentencePiece normalisation is not 'identity'"
        return
    for part, covered in _COVERED.items():
        for kind in _types(structure.definition.get(part)) - covered:
            yield f"its {part} {kind} is not covered"


def _canonical(part: Any) -> Any:
    """A normaliser or pre-tokenizer without the fields that do not affect ids."""
    if not part or part["type"] != "Sequence":
        defaults = {"use_regex": True} if part and part["type"] == "ByteLevel" else {}
        return part and defaults | {k: v for k, v in part.items() if k != "trim_offsets"}
    parts = [_canonical(one) for one in part.get("normalizers", part.get("pretokenizers", ()))]
    return parts if len(parts) > 1 else next(iter(parts), None)


def _types(part: Any) -> set[str]:
    """Types of the parts of a normaliser or pre-tokenizer; a sequence counts as its parts."""
    if not part:
        return set()
    if part["type"] == "Sequence":
        parts = part.get("normalizers", part.get("pretokenizers", ()))
        return set().union(*map(_types, parts))
    return {part["type"]}


def _bare_model(tokenizer: Tokenizer) -> bytes:
    """A SentencePiece model without pieces, and without the fields that only training reads."""
    if not isinstance(tokenizer, SPTokenizer):
        return b""
    full = _parsed(read_bytes(tokenizer.path))
    _check_pieces(full)
    bare = type(full)()
    bare.normalizer_spec.CopyFrom(full.normalizer_spec)
    bare.normalizer_spec.ClearField("name")
    for name in ("model_type", "byte_fallback", "treat_whitespace_as_suffix"):
        setattr(bare.trainer_spec, name, getattr(full.trainer_spec, name))
    return bare.SerializeToString(deterministic=True)


def _check_pieces(model: Any) -> None:
    if any(piece.type == piece.UNUSED for piece in model.pieces):
        raise FastTierError("it has pieces of the type UNUSED, which only sentencepiece handles.")
    merged: dict[float, str] = {}
    for piece in model.pieces:
        # Runs of spaces may share one, as in Llama's vocabulary: a proof compares all runs.
        if piece.type == piece.NORMAL and len(piece.piece) > 1 and piece.piece.strip(META_SPACE):
            first = merged.setdefault(piece.score, piece.piece)
            if first != piece.piece:
                raise FastTierError(
                    f"its pieces {first!r} and {piece.piece!r} share a score, and the two tiers "
                    f"do not merge such pieces in the same order."
                )


def _parsed(content: bytes) -> Any:
    # Imported on demand: only proofs need it, and it takes longer than the rest. sentencepiece
    # pins the versions of protobuf that it works with, and protobuf has an exception of its own.
    try:
        from sentencepiece import sentencepiece_model_pb2
    except Exception as error:
        raise FastTierError(
            f"the library protobuf is missing, or does not match the installed sentencepiece "
            f"({type(error).__name__}: {error}). Update it with `pip install -U protobuf`"
        ) from error
    model: Any = sentencepiece_model_pb2.ModelProto()  # pyright: ignore[reportAttributeAccessIssue]
    model.ParseFromString(content)
    return model


def probe_model(structure: Structure, pieces: Mapping[str, int]) -> bytes:
    """A SentencePiece model of a structure with other pieces, given with their types."""
    model = _parsed(structure.sp_model)
    for rank, (piece, kind) in enumerate(pieces.items()):
        model.pieces.add(piece=piece, score=-float(rank), type=kind)
    return model.SerializeToString()
