"""Tekken files give exactly the ids of mistral-common."""

import base64
import json
import pickle
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from blendtitan.errors import ConfigError, FastTierError
from blendtitan.tokenizers import (
    TekkenTokenizer,
    build_encoder,
    build_tokenizer,
    identity_of,
    load_tokenizer,
)
from blendtitan.tokenizers.structure import fast_definition

pytest.importorskip("tiktoken")

PATTERN = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{M}]*[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

SYMBOLS = ["<unk>", "<s>", "</s>", "[INST]", "<pad>"]

PIECES = [bytes([byte]) for byte in range(256)] + [b"th", b"the", b" the", b"  ", b"ab"]

KINDS = ["aZ the ab", "0129", " \t\n\u3000\x85", "'s'LL.,!?</s>", "\u00e9\u01c5\u6f22\U0001f600"]


def texts(count: int) -> list[str]:
    """Texts of every kind of character, and of random characters."""
    rng = random.Random(0)
    anything = [chr(c) for c in range(0x3000) if not 0xD800 <= c < 0xE000]
    made = ["".join(rng.choices(rng.choice([*KINDS, anything]), k=40)) for _ in range(count)]
    return [*made, "", " " * 3000, "A" * 3000, "</s><s>[INST]"]


@pytest.fixture
def tekken_path(tmp_path: Path) -> Path:
    """A file of the published form, with more pieces than it uses."""
    entries = [*PIECES, b"never used"]
    content = {
        "config": {
            "pattern": PATTERN,
            "num_vocab_tokens": len(entries),
            "default_vocab_size": len(PIECES) + 10,
            "default_num_special_tokens": 10,
            "version": "v7",
        },
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(piece).decode(), "token_str": None}
            for rank, piece in enumerate(entries)
        ],
        "special_tokens": [
            {"rank": rank, "token_str": symbol, "is_control": True}
            for rank, symbol in enumerate(SYMBOLS)
        ],
    }
    path = tmp_path / "tekken.json"
    path.write_text(json.dumps(content))
    return path


def test_the_ids_are_those_of_mistral_common(tekken_path: Path) -> None:
    """That library defines them; a conversion could change them."""
    tekken = pytest.importorskip("mistral_common.tokens.tokenizers.tekken")
    theirs, ours = tekken.Tekkenizer.from_file(tekken_path), load_tokenizer(tekken_path)

    for text in texts(500):
        assert ours.encode(text) == theirs.encode(text, bos=False, eos=False)
        assert ours.encode(text, True, True) == theirs.encode(text, bos=True, eos=True)
    assert ours.vocab_size == theirs.n_words


def test_a_text_comes_back_without_control_symbols(tekken_path: Path) -> None:
    tokenizer = load_tokenizer(tekken_path)

    for text in texts(20):
        ids = tokenizer.encode(text)
        assert tokenizer.decode([1, *ids, 2]) == text
        assert tokenizer.control_ids().isdisjoint(ids)


def test_every_way_to_name_a_tokenizer_leads_to_it(tekken_path: Path) -> None:
    model = SimpleNamespace(tokenizer_backend="tekken", tokenizer_path=tekken_path.parent)
    for tokenizer in (
        load_tokenizer(tekken_path.parent),
        build_tokenizer(SimpleNamespace(model=model)),
        pickle.loads(pickle.dumps(load_tokenizer(tekken_path))),
    ):
        assert isinstance(tokenizer, TekkenTokenizer)
        assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 2, 4)


def test_the_identity_depends_on_what_determines_ids(tekken_path: Path) -> None:
    """Formatting and unused pieces do not change ids."""
    before = identity_of(load_tokenizer(tekken_path), 2)
    content = json.loads(tekken_path.read_text())
    content["vocab"].pop()
    tekken_path.write_text(json.dumps(content, indent=1))
    same = identity_of(load_tokenizer(tekken_path), 2)
    content["config"]["pattern"] = r"\s+|\S+"
    tekken_path.write_text(json.dumps(content))

    assert same.is_same(before)
    assert before.kind == "tekken"
    assert not identity_of(load_tokenizer(tekken_path), 2).is_same(before)


def test_any_control_symbol_may_be_eos(tekken_path: Path) -> None:
    assert load_tokenizer(tekken_path, eos="[INST]").eos_id == 3
    assert load_tokenizer(tekken_path, eos=7).eos_id == 7
    with pytest.raises(ConfigError, match="'the' is requested as EOS, expected a control symbol"):
        load_tokenizer(tekken_path, eos="the")


def test_the_reference_tier_is_used(tekken_path: Path) -> None:
    assert build_encoder(tekken_path).tier == "reference"
    with pytest.raises(FastTierError, match="gigatoken cannot read Tekken files"):
        fast_definition(load_tokenizer(tekken_path))


def test_a_missing_library_is_an_error_that_names_the_extra(
    tekken_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken", None)

    with pytest.raises(ConfigError, match=r"pip install 'blendtitan\[tekken\]'"):
        load_tokenizer(tekken_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"config": {}}', "null"])
def test_another_file_of_that_name_is_an_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tekken.json"
    path.write_text(content)

    with pytest.raises(ConfigError, match=r"tekken\.json: is not a Tekken file although"):
        load_tokenizer(path)
