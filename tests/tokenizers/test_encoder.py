"""The fast tier gives the ids of the reference tier, or is not used."""

import pickle
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from itertools import filterfalse, islice
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from blendtitan.errors import ConfigError, FastTierError
from blendtitan.prepare.demo import code_texts, readme_texts, reference_texts
from blendtitan.tokenizers import Encoder, build_encoder, encoder, load_tokenizer
from blendtitan.tokenizers.encoder import is_compared
from blendtitan.tokenizers.fast import FastEncoder
from blendtitan.tokenizers.proof_texts import hard_texts
from tests.tokenizers.conftest import TEXT

DOCUMENTS = [f"document {number}" for number in range(100_000)]
COMPARED = next(filter(is_compared, DOCUMENTS))
NOT_COMPARED = next(filterfalse(is_compared, DOCUMENTS))


Answer = Callable[[str], "NDArray[np.integer] | None"]
UseStandIn = Callable[[Answer], None]


class StandIn:
    """A stand-in for gigatoken that is wrong or panics on some texts."""

    def __init__(self, path: Path, answer: Callable[[str], NDArray[np.integer] | None]) -> None:
        self._tokenizer = load_tokenizer(path)
        self._answer = answer

    def encode(self, text: str) -> NDArray[np.integer]:
        """Ids of one text."""
        answer = self._answer(text)
        return np.array(self._tokenizer.encode(text), np.int32) if answer is None else answer


class PanicException(BaseException):
    """A panic in Rust as Python sees it: not an ``Exception``, and not importable."""


def wrong_for(*texts: str) -> Callable[[str], NDArray[np.integer] | None]:
    return lambda text: np.array([7, 7, 7]) if text in texts else None


def panics_for(bad: str) -> Callable[[str], None]:
    def answer(text: str) -> None:
        if text == bad:
            raise PanicException("index out of bounds")

    return answer


@pytest.fixture(params=["sp", "hf"])
def path(request: pytest.FixtureRequest, sp_path: Path, hf_path: Path) -> Path:
    return sp_path if request.param == "sp" else hf_path


@pytest.fixture(scope="module", params=["sp", "hf"])
def fast(request: pytest.FixtureRequest, sp_path: Path, hf_path: Path) -> Encoder:
    return build_encoder(sp_path if request.param == "sp" else hf_path, "fast")


@pytest.fixture
def use_stand_in(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UseStandIn:
    """Replace gigatoken, also during the proof, which is then not about gigatoken."""

    def use(answer: Callable[[str], NDArray[np.integer] | None]) -> None:
        def stand_in(*_: object, **__: object) -> FastEncoder:
            return FastEncoder(lambda: StandIn(path, answer))

        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setattr("blendtitan.tokenizers.proof.SAMPLE_TEXTS", 100)
        monkeypatch.setattr(FastEncoder, "load", stand_in)
        monkeypatch.setattr(FastEncoder, "of", stand_in)

    return use


@cache
def reference_of(path: Path) -> Encoder:
    return build_encoder(path, "reference")


def assert_same_ids(fast: Encoder, texts: list[str]) -> None:
    ids, lens = fast.encode(texts)
    expected_ids, expected_lens = reference_of(fast.path).encode(texts)
    np.testing.assert_array_equal(lens, expected_lens)
    np.testing.assert_array_equal(ids, expected_ids)
    assert (ids.dtype, lens.dtype) == (np.int32, np.int32)


def random_texts(seed: int, count: int) -> Iterator[str]:
    """Mixtures of every plane of Unicode, white space, digits and control symbols."""
    rng = random.Random(seed)
    alphabets = [
        [chr(code) for code in range(32, 127)],
        list(" \n\t\r\u00a0\u3000.,'^"),
        [chr(code) for code in range(0x300)],
        [chr(rng.randrange(0x300, 0xD800)) for _ in range(2000)],
        [chr(rng.randrange(0xE000, 0x110000)) for _ in range(2000)],
        ["</s>", "<s>", "<unk>", "<0x41>", "\u0301", "\u200d", "\U0001f600", "\U000323b0"],
    ]
    for _ in range(count):
        yield "".join(rng.choice(rng.choice(alphabets)) for _ in range(rng.randrange(60)))


# --- the same ids -----------------------------------------------------------------------------


def test_both_tiers_give_the_same_ids_for_hard_texts(fast: Encoder) -> None:
    assert_same_ids(fast, list(hard_texts(load_tokenizer(fast.path).symbols())))


def test_both_tiers_give_the_same_ids_for_random_texts(fast: Encoder) -> None:
    assert_same_ids(fast, list(random_texts(seed=1, count=20_000)))


@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_both_tiers_give_the_same_ids_for_any_texts(fast: Encoder, texts: list[str]) -> None:
    assert_same_ids(fast, texts)


def test_both_tiers_give_the_same_ids_for_real_text(fast: Encoder) -> None:
    for corpus in (code_texts, reference_texts, readme_texts):
        assert_same_ids(fast, list(islice(corpus(), 50)))


def test_control_symbols_in_text_stay_text(fast: Encoder) -> None:
    ids, _ = fast.encode(["a</s>b", "</s>", "<s></s>"])

    assert fast.eos_id not in ids


def test_a_model_with_another_normalisation_gives_the_same_ids(tmp_path: Path) -> None:
    """The default normalisation of SentencePiece is wrong in gigatoken 0.10."""
    prefix = str(tmp_path / "nfkc")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()),
        model_prefix=prefix,
        model_type="bpe",
        vocab_size=600,
        byte_fallback=True,
        minloglevel=2,
    )
    either = build_encoder(f"{prefix}.model", "auto")

    assert_same_ids(either, list(hard_texts([])))
    assert_same_ids(either, list(random_texts(seed=2, count=2000)))


# --- the checks -------------------------------------------------------------------------------


def test_a_wrong_id_for_a_hard_text_is_noticed(
    path: Path, use_stand_in: UseStandIn, caplog: pytest.LogCaptureFixture
) -> None:
    use_stand_in(wrong_for("a</s>b"))

    assert build_encoder(path, "auto").tier == "reference"
    assert "gives other ids than the reference for the text 'a</s>b'" in caplog.text
    with pytest.raises(ConfigError, match=r"tokenizer tier 'fast' cannot be used.*\[7, 7, 7\]"):
        build_encoder(path, "fast")


def test_a_wrong_id_in_the_first_documents_is_noticed(path: Path, use_stand_in: UseStandIn) -> None:
    """A silent switch to the reference is wrong, because earlier runs may have used the proof."""
    use_stand_in(wrong_for(NOT_COMPARED))

    assert build_encoder(path, "auto").tier == "fast"
    with pytest.raises(FastTierError, match="other ids than the reference"):
        build_encoder(path, "auto", first_texts=[NOT_COMPARED])


def test_a_wrong_id_in_the_middle_of_a_run_is_noticed(path: Path, use_stand_in: UseStandIn) -> None:
    use_stand_in(wrong_for(COMPARED))
    running = build_encoder(path, "auto")

    assert running.tier == "fast"
    running.encode(["some", "other", "texts"])
    with pytest.raises(
        FastTierError, match=r"other ids than the reference .*\[7, 7, 7\], expected"
    ):
        running.encode(["some", COMPARED, "texts"])


def test_missing_ids_at_the_end_are_a_disagreement(path: Path) -> None:
    reference = load_tokenizer(path)
    shorter = Encoder(
        reference,
        FastEncoder(lambda: StandIn(path, lambda text: reference.encode_batch([text])[0][:-1])),
    )

    with pytest.raises(FastTierError, match=r"from id number \d+ on \[\], expected \[\d+\]"):
        shorter.check(["some text"])


def test_about_one_document_in_a_thousand_is_compared() -> None:
    num_compared = sum(map(is_compared, DOCUMENTS))

    assert 50 <= num_compared <= 200


# --- failures of the library ------------------------------------------------------------------


def test_a_panic_before_the_run_means_the_reference(
    path: Path, use_stand_in: UseStandIn, caplog: pytest.LogCaptureFixture
) -> None:
    use_stand_in(panics_for("a</s>b"))

    assert build_encoder(path, "auto").tier == "reference"
    assert "gigatoken failed (PanicException: index out of bounds)" in caplog.text


def test_a_panic_while_loading_means_the_reference(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # keep the refusal from later tests

    def load_hf_json(_: bytes) -> None:
        raise PanicException("not a byte")

    monkeypatch.setattr("gigatoken.gigatoken_rs.load_hf_json", load_hf_json)

    assert build_encoder(path, "auto").tier == "reference"
    assert "gigatoken cannot load it (PanicException: not a byte)" in caplog.text


def test_a_panic_in_the_middle_of_a_run_is_our_error(path: Path, use_stand_in: UseStandIn) -> None:
    use_stand_in(panics_for(NOT_COMPARED))
    running = build_encoder(path, "auto")

    with pytest.raises(FastTierError, match="PanicException: index out of bounds"):
        running.encode([NOT_COMPARED])


def test_ctrl_c_is_not_a_failure_of_the_library(path: Path) -> None:
    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FastEncoder(lambda: StandIn(path, interrupted)).encode_texts(["text"])


def test_a_model_that_gigatoken_does_not_support_is_read_by_the_reference(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prefix = str(tmp_path / "unigram")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()),
        model_prefix=prefix,
        vocab_size=300,
        minloglevel=2,
    )

    assert build_encoder(f"{prefix}.model", "auto").tier == "reference"
    assert "only BPE sentencepiece models are supported" in caplog.text


def test_without_gigatoken_auto_is_the_reference_and_fast_an_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("gigatoken", "gigatoken.gigatoken_rs"):
        monkeypatch.setitem(sys.modules, name, None)

    assert build_encoder(path, "auto").tier == "reference"
    with pytest.raises(ConfigError, match=r"needs gigatoken, which is not .*blendtitan\[fast\]"):
        build_encoder(path, "fast")


def test_an_unknown_tier_is_an_error(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'quick', expected one of auto, fast, reference"):
        build_encoder(path, "quick")  # pyright: ignore[reportArgumentType]


# --- memory and processes ---------------------------------------------------------------------


def test_a_cache_beyond_its_bound_is_dropped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library never forgets a word that it has seen."""
    built: list[StandIn] = []

    def build_backend() -> StandIn:
        built.append(StandIn(path, lambda _: None))
        return built[-1]

    backend = FastEncoder(build_backend)
    backend.encode_texts(["some text"])
    monkeypatch.setattr("blendtitan.tokenizers.fast.CACHE_BYTES", -1)
    backend.encode_texts(["more text"])

    assert len(built) == 2


@pytest.mark.slow
def test_memory_is_bounded_on_text_that_never_repeats_a_word(sp_path: Path) -> None:
    """80 MB of random words: gigatoken alone remembers more than a gigabyte of them."""
    script = f"""
import random
from blendtitan.tokenizers import build_encoder
fast = build_encoder({str(sp_path)!r}, "fast")
rng = random.Random(1)
for _ in range(80):
    fast.encode([rng.randbytes(4 * 110_000).hex(" ", 4)])
print(*(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    peak = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout

    assert int(peak.split()[1]) < 600 << 10


@pytest.mark.parametrize("tier", ["fast", "reference"])
def test_a_copy_for_another_process_is_the_same(
    path: Path, tier: encoder.Tier, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = build_encoder(path, tier)
    monkeypatch.setattr(Encoder, "check", lambda *_: pytest.fail("checks are made once a run"))
    copy = pickle.loads(pickle.dumps(original))

    assert (copy.tier, copy.identity, copy.eos_id) == (tier, original.identity, original.eos_id)
    assert copy.encode([TEXT])[0].tolist() == original.encode([TEXT])[0].tolist()


def test_a_file_that_changed_under_a_run_is_an_error(sp_path: Path, tmp_path: Path) -> None:
    """Workers that start later would write ids of another tokenizer."""
    path = tmp_path / "tokenizer.model"
    path.write_bytes(sp_path.read_bytes())
    pickled = pickle.dumps(build_encoder(path))
    # Protobuf skips fields it does not know.
    path.write_bytes(sp_path.read_bytes() + b"\xf8\x07\x01")

    with pytest.raises(ConfigError, match=r"tokenizer\.model: was changed"):
        pickle.loads(pickled)


def test_the_identity_depends_on_special_tokens(hf_path: Path, tmp_path: Path) -> None:
    """EOS is written after each document, and is named outside of ``tokenizer.json``."""
    (tmp_path / "tokenizer.json").write_bytes((hf_path / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<s>"}')

    other, known = build_encoder(tmp_path), build_encoder(hf_path)
    assert other.eos_id != known.eos_id
    assert other.identity != known.identity
    assert known.identity == reference_of(known.path).identity


def test_encoding_imports_neither_torch_nor_transformers(sp_path: Path) -> None:
    """Worker processes start in a fraction of a second; torch alone takes seconds."""
    script = f"""
import sys
from blendtitan.tokenizers import build_encoder
build_encoder({str(sp_path)!r}, "fast").encode(["text"])
print(sorted({{"torch", "transformers", "awkward"}} & set(sys.modules)))
"""
    found = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout

    assert found.strip() == b"[]"
