"""The fast tier is used where a proof shows that its ids are those of the reference."""

import io
import json
import logging
import multiprocessing
import sys
import unicodedata
from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from blendtitan.errors import ConfigError
from blendtitan.tokenizers import Encoder, build_encoder, load_tokenizer, proof
from blendtitan.tokenizers.fast import (
    DisputedTexts,
    FastEncoder,
    differing_texts,
    ranges_of,
    read_definition,
)
from blendtitan.tokenizers.router import tokenizer_identity
from blendtitan.tokenizers.scan import scan_structure
from blendtitan.tokenizers.structure import structure_of
from tests.tokenizers.conftest import TEXT

SYMBOLS = ("<sep>", "<|im_start|>", "<|im_end|>")

DEEPSEEK = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
)

MANY_BYTES = 10**12


@pytest.fixture(scope="module")
def symbols_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Byte-fallback BPE with user-defined symbols, as of Yi and InternLM."""
    path = tmp_path_factory.mktemp("symbols") / "tokenizer.model"
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()),
        model_writer=model,
        model_type="bpe",
        vocab_size=500,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=list(SYMBOLS),
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())
    return path


@pytest.fixture(scope="module")
def deepseek_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small vocabulary behind the pattern of DeepSeek V3 and V4."""
    tokenizer = Tokenizer(models.BPE())
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in DEEPSEEK]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # A merge of a symbol's first bytes with a letter shows how a library cuts in front of it.
    tokenizer.train_from_iterator([*TEXT.splitlines(), *["\u20c1a \u2bffa"] * 50], trainer)
    folder = tmp_path_factory.mktemp("deepseek")
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and proofs with a small sample."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(proof, "SAMPLE_TEXTS", 200)
    return tmp_path / "blendtitan" / "tokenizer-proofs"


@pytest.fixture
def no_proofs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if a proof is made instead of read."""
    monkeypatch.setattr(proof, "prove", lambda *_, **__: pytest.fail("a proof is made"))


@pytest.fixture(scope="module", params=["symbols", "deepseek"])
def fast(request: pytest.FixtureRequest) -> Encoder:
    return build_encoder(request.getfixturevalue(f"{request.param}_path"), "fast")


@lru_cache
def reference_of(path: Path) -> Encoder:
    return build_encoder(path, "reference")


def assert_same_ids(fast: Encoder, texts: list[str]) -> None:
    assert fast.tier == "fast"
    expected_ids, expected_lens = reference_of(fast.path).encode(texts)
    ids, lens = fast.encode(texts)
    np.testing.assert_array_equal(lens, expected_lens)
    np.testing.assert_array_equal(ids, expected_ids)


# --- the same ids -----------------------------------------------------------------------------


@given(
    texts=st.lists(
        st.lists(
            st.sampled_from([*SYMBOLS, "<sep", "sep>", " ", "\n", "a", "1", "\u2581"])
            | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
        ).map("".join)
    )
)
def test_both_tiers_give_the_same_ids_for_texts_with_symbols(
    fast: Encoder, texts: list[str]
) -> None:
    assert_same_ids(fast, texts)


def test_a_text_with_a_user_defined_symbol_goes_to_the_reference(symbols_path: Path) -> None:
    """The fast library adds a space after each, because it normalises the rest separately."""
    texts = [f"a{symbol}b {symbol}" for symbol in SYMBOLS]
    encoder = build_encoder(symbols_path, "fast")

    assert_same_ids(encoder, ["plain text", *texts, "<sep and sep>"])


def test_characters_of_a_newer_unicode_go_to_the_reference(deepseek_path: Path) -> None:
    """The libraries use different versions of Unicode, which affect how patterns cut words."""
    encoder = build_encoder(deepseek_path, "fast")
    codes = chain(range(0x800, 0x3000), range(0x11C00, 0x12000))
    newer = [code for code in codes if unicodedata.category(chr(code)) == "Cn"]

    for context in ("a{}b", "{}a", "^{}^n", "{0}{0}"):
        assert_same_ids(encoder, [context.format(chr(code)) for code in newer])


# --- what a scan finds ------------------------------------------------------------------------


def test_a_scan_finds_the_characters_on_which_libraries_disagree(
    deepseek_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """U+323B0 became a letter with Unicode 17, which one library does not support."""
    tokenizer = load_tokenizer(deepseek_path)
    structure = structure_of(tokenizer, read_definition(tokenizer))
    monkeypatch.setattr("blendtitan.tokenizers.scan._varied", lambda: iter(range(0x180)))
    monkeypatch.setattr(
        "blendtitan.tokenizers.scan._uniform", lambda: iter(range(0x323A8, 0x323B8))
    )
    monkeypatch.setattr("blendtitan.tokenizers.scan._sparse", lambda: iter(range(0x40000, 0x40040)))
    monkeypatch.setattr("blendtitan.tokenizers.scan._SEQUENCE_LEN", 2)

    assert scan_structure(structure) == ((0x323B0, 0x323B7),)


@pytest.fixture
def nfc_path(hf_path: Path, tmp_path: Path) -> Path:
    """A tokenizer that composes marks, as those of Qwen do."""
    definition = json.loads((hf_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(
        json.dumps(definition | {"normalizer": {"type": "NFC"}})
    )
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    return tmp_path


def test_marks_and_letters_that_one_library_composes_are_disputed(
    nfc_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`tokenizers` normalises as Unicode 9 does, `gigatoken` as Unicode 16."""
    tokenizer = load_tokenizer(nfc_path)
    definition = read_definition(tokenizer)
    varied = [*range(0x300, 0x340), *range(0x1DF0, 0x1E00), *range(0x105C0, 0x105F0)]
    varied += [0x898, 0x899, 0x16FF0, 0x16FF1]
    monkeypatch.setattr("blendtitan.tokenizers.scan._varied", lambda: iter(varied))
    monkeypatch.setattr("blendtitan.tokenizers.scan._uniform", lambda: iter(range(0xAC00, 0xAC10)))
    monkeypatch.setattr("blendtitan.tokenizers.scan._sparse", lambda: iter(range(0x40000, 0x40010)))
    monkeypatch.setattr("blendtitan.tokenizers.scan._SEQUENCE_LEN", 2)
    monkeypatch.setattr("blendtitan.tokenizers.scan._MARKS_LEN", 2)

    is_disputed = DisputedTexts(scan_structure(structure_of(tokenizer, definition)))

    # Marks of the classes 230, 220 and 218, which change places with other marks.
    different = ["a\u0301\u0898\u0323", "a\u0899\u0301", "a\u1dfa\u0300", "\U000105d2\u0307"]
    assert list(differing_texts(tokenizer, FastEncoder.of(definition), different)) == different
    assert all(map(is_disputed, different))
    assert not any(map(is_disputed, ["e\u0301\u0323", "\u00e9", "\u1df5", "\uac00\u11a8"]))


def test_a_list_of_proven_structures_is_only_valid_for_its_library_versions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert proof.listed_structures()
    monkeypatch.setattr(proof, "library_versions", lambda: {"gigatoken": "9.9"})
    proof.listed_structures.cache_clear()

    assert not proof.listed_structures()
    proof.listed_structures.cache_clear()


@pytest.mark.parametrize("rule", ["nmt_nfkc", "nfkc_cf"])
def test_a_structure_that_a_proof_does_not_cover_is_refused(
    rule: str, tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prefix = tmp_path / "tokenizer"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()),
        model_prefix=str(prefix),
        model_type="bpe",
        vocab_size=500,
        byte_fallback=True,
        normalization_rule_name=rule,
        minloglevel=2,
    )

    assert build_encoder(f"{prefix}.model", "auto").tier == "reference"
    assert (
        "tier (same ids, but slower): its SentencePiece normalisation is not 'iden" in caplog.text
    )
    with pytest.raises(ConfigError, match="SentencePiece normalisation is not 'identity'"):
        build_encoder(f"{prefix}.model", "fast")
    caplog.clear()

    assert build_encoder(f"{prefix}.model", "auto", text_bytes=1_000_000).tier == "reference"
    assert not caplog.text  # so little text is fast enough


@pytest.mark.usefixtures("cache")
def test_a_protobuf_that_does_not_fit_means_the_reference(
    sp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The description of models in sentencepiece checks it when it is imported."""
    monkeypatch.delattr(sentencepiece, "sentencepiece_model_pb2", raising=False)
    monkeypatch.setitem(sys.modules, "sentencepiece.sentencepiece_model_pb2", None)

    assert build_encoder(sp_path, "auto").tier == "reference"
    assert "pip install -U protobuf" in caplog.text


# --- the cache --------------------------------------------------------------------------------


@pytest.mark.usefixtures("cache")
def test_a_proof_is_made_once(sp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build_encoder(sp_path, "auto").tier == "fast"
    monkeypatch.setattr(proof, "prove", lambda *_, **__: pytest.fail("a proof is made"))

    assert build_encoder(sp_path, "auto").tier == "fast"
    assert build_encoder(sp_path, "auto", text_bytes=1).tier == "fast"


def test_a_damaged_proof_is_made_again(
    sp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build_encoder(sp_path, "fast")
    (path,) = cache.glob("*.json")
    kept = path.read_bytes()

    for damaged in (b"[]", kept[:-9], kept.replace(b'"refusal":""', b'"x":1')):
        path.write_bytes(damaged)
        caplog.clear()
        assert build_encoder(sp_path, "fast").tier == "fast"
        assert f"{path}: is damaged" in caplog.text
        assert path.read_bytes() == kept


def test_a_cache_that_cannot_be_written_does_not_fail_the_command(
    sp_path: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))

    assert build_encoder(sp_path, "fast").tier == "fast"


def _write_often(number: int) -> None:
    for _ in range(50):
        proof.write_proof("key", proof.Proof(refusal=f"{number}"))
        found = proof.read_proof("key")
        assert found is not None
        assert found.refusal in "0123"


@pytest.mark.usefixtures("cache")
def test_processes_may_use_the_cache_at_once() -> None:
    processes = [
        multiprocessing.get_context("fork").Process(target=_write_often, args=(number,))
        for number in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0] * 4


# --- when a proof is made ---------------------------------------------------------------------


@pytest.mark.usefixtures("cache", "no_proofs")
def test_little_text_is_encoded_by_the_reference_without_a_proof(sp_path: Path) -> None:
    """A small job starts at once, because it ends before a proof would."""
    assert build_encoder(sp_path, "auto", text_bytes=1_000_000).tier == "reference"


@pytest.mark.usefixtures("cache")
def test_much_text_is_worth_a_proof(sp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    assert build_encoder(sp_path, "auto", text_bytes=MANY_BYTES).tier == "fast"
    assert "compared the tokenizer tiers in" in caplog.text


@pytest.mark.usefixtures("cache")
def test_a_difference_in_a_run_is_remembered_for_the_tokenizer(sp_path: Path) -> None:
    identity = tokenizer_identity(load_tokenizer(sp_path))
    proof.refute(identity, "gigatoken gives other ids.")

    assert build_encoder(sp_path, "auto").tier == "reference"
    with pytest.raises(ConfigError, match=r"gives other ids\. \(To try it again, delete .*json"):
        build_encoder(sp_path, "fast")


# --- disputed texts ---------------------------------------------------------------------------


@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.sets(st.integers(0xA0, 0xD7FF) | st.integers(0x10000, 0x10FFFF), min_size=1, max_size=5),
    st.lists(st.text("<|>ab", min_size=1, max_size=4), max_size=4),
)
def test_a_text_is_disputed_if_it_contains_anything_disputed(
    text: str, codes: set[int], markers: list[str]
) -> None:
    for candidate in (text, text + chr(min(codes)), f"{''.join(markers)}{text}"):
        expected = any(ord(char) in codes for char in candidate) or any(
            marker in candidate for marker in markers
        )

        assert DisputedTexts(ranges_of(codes), tuple(markers))(candidate) == expected


@pytest.mark.parametrize("text", ["", "plain", "caf\u00e9 \u2019", "\U0001f600", "\u6f22\ud55c"])
def test_ordinary_characters_are_not_disputed(text: str, sp_path: Path, hf_path: Path) -> None:
    for path in (sp_path, hf_path):
        assert not build_encoder(path, "fast")._is_disputed(text)
