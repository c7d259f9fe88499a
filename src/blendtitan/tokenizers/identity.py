"""Which tokenizer this is: a hash of everything that decides the ids of a text.

Two files that give every text the same ids have one hash, although they may differ in formatting,
in what is done with the ids afterwards, or in the library release that wrote them.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from blendtitan.identity import TokenizerIdentity
from blendtitan.tokenizers.base import Tokenizer, read_bytes
from blendtitan.tokenizers.hf import HFTokenizer
from blendtitan.tokenizers.sp import SPTokenizer
from blendtitan.tokenizers.tekken import TekkenTokenizer, tekken_definition

_SCHEME = "1"
"""Another way to hash needs another value. Hashes of different schemes are not compared."""

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def tokenizer_identity(tokenizer: Tokenizer) -> str:
    """A hash of the file's content and of the special tokens that were read from it."""
    special = (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.unk_id)
    described = f"{type(tokenizer).__name__} {tokenizer.vocab_size} {special}".encode()
    return hashlib.sha256(described + b"\n" + read_bytes(tokenizer.path)).hexdigest()


def identity_of(tokenizer: Tokenizer, eod_id: int | None) -> TokenizerIdentity:
    """The identity of a tokenizer whose documents end in ``eod_id``, or in none."""
    digest = hashlib.sha256(_definition(tokenizer)).hexdigest()
    kind = type(tokenizer).__name__.removesuffix("Tokenizer").lower()
    if isinstance(tokenizer, SPTokenizer):
        kind = "sentencepiece"
    elif isinstance(tokenizer, HFTokenizer):
        kind = "huggingface"
    return TokenizerIdentity(
        hash=f"{_SCHEME}:{digest}",
        name=f"{tokenizer.path.absolute().parent.name}/{tokenizer.path.name}",
        kind=kind,
        vocab_size=tokenizer.vocab_size,
        eod_id=eod_id,
    )


def _definition(tokenizer: Tokenizer) -> bytes:
    """Bytes that are equal for two tokenizers if they give every text the same ids."""
    if isinstance(tokenizer, TekkenTokenizer):
        definition = tekken_definition(tokenizer.path)
        # Texts never become symbols, so their names decide nothing.
        decisive = {name: value for name, value in definition.items() if name != "symbols"}
        return orjson.dumps(decisive, option=orjson.OPT_SORT_KEYS)
    content = read_bytes(tokenizer.path)
    if not isinstance(tokenizer, HFTokenizer):
        return content
    parsed = orjson.loads(content)
    # Other fields change no ids: the library is asked for ids without special tokens, truncation
    # and padding.
    added = map(_added_token, parsed.get("added_tokens") or ())
    decisive = {
        "added_tokens": sorted(added, key=lambda token: token["id"]),
        "normalizer": _component(parsed.get("normalizer")),
        "pre_tokenizer": _component(parsed.get("pre_tokenizer")),
        "model": _model(parsed["model"]),
        "spelled_out": sorted(tokenizer.spelled_out.items()),
    }
    return orjson.dumps(decisive, option=orjson.OPT_SORT_KEYS)


def _added_token(token: Mapping[str, Any]) -> dict[str, Any]:
    flags = {flag: bool(token.get(flag)) for flag in _FLAGS}
    return {"id": token["id"], "content": token["content"]} | flags


def _model(model: Mapping[str, Any]) -> dict[str, Any]:
    """A model without what library releases write differently."""
    known = {key: value for key, value in model.items() if value not in (None, False)}
    if "merges" in known:
        merges = [m.split(" ", 1) if isinstance(m, str) else m for m in known["merges"]]
        affixes = ("continuing_subword_prefix", "end_of_word_suffix")
        known = {key: value for key, value in known.items() if key not in affixes or value}
        known |= {"type": "BPE", "merges": merges}
    return known


def _component(component: Any) -> Any:
    """A normalizer or pre-tokenizer without what library releases write differently."""
    if isinstance(component, list):
        return [_component(part) for part in component]
    if not isinstance(component, Mapping):
        return component
    known = {key: _component(value) for key, value in component.items() if value is not None}
    if known.get("type") == "ByteLevel":
        known.pop("trim_offsets", None)  # about offsets, not ids
        return {"use_regex": True} | known
    if known.get("type") == "Metaspace":
        known.pop("str_rep", None)
        prepends = known.pop("add_prefix_space", True)
        return {"prepend_scheme": "always" if prepends else "never", "split": True} | known
    return known
