import json
import logging
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import sentencepiece
from tokenizers import AddedToken, Tokenizer, models

from blendtitan.errors import ConfigError, VocabularyError
from blendtitan.tokenizers import HFTokenizer, SPTokenizer, build_tokenizer, load_tokenizer
from tests.tokenizers.conftest import TEXT

CONTROL_TEXTS = ["</s>", "<s>", "a</s>b", "<unk> <pad>", "</s></s>"]


@pytest.fixture(scope="module", params=["sp", "hf"])
def tokenizer(
    request: pytest.FixtureRequest, sp_path: Path, hf_path: Path
) -> SPTokenizer | HFTokenizer:
    return SPTokenizer(sp_path) if request.param == "sp" else HFTokenizer(hf_path)


def job_config(backend: str | None, **paths: Path | None) -> SimpleNamespace:
    return SimpleNamespace(model=SimpleNamespace(tokenizer_backend=backend, **paths))


def saved_hf(tokenizer: Tokenizer, folder: Path, **config: str) -> HFTokenizer:
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return HFTokenizer(folder)


# --- both adapters ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", " ", "a  b\n\n\tc\r\n", "\u00e9 \u6f22 \U0001f600 \x00", TEXT]
)
def test_a_text_comes_back_unchanged(tokenizer: SPTokenizer | HFTokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("text", CONTROL_TEXTS)
def test_control_symbols_in_text_stay_text(tokenizer: SPTokenizer | HFTokenizer, text: str) -> None:
    """A web page about tokenizers must not end a document in its middle."""
    ids = tokenizer.encode(text)

    assert not {tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id} & set(ids)
    assert tokenizer.decode(ids) == text


def test_bos_and_eos_are_added_on_request(tokenizer: SPTokenizer | HFTokenizer) -> None:
    ids = tokenizer.encode("text")
    both = [tokenizer.bos_id, *ids, tokenizer.eos_id]

    assert tokenizer.encode("text", True, True) == both
    assert tokenizer.encode("text", bos=True, eos=True) == both
    assert tokenizer.encode("text", add_bos=True, add_eos=True) == both
    assert tokenizer.decode(both) == "text"


def test_a_batch_gives_the_ids_of_each_text(tokenizer: SPTokenizer | HFTokenizer) -> None:
    texts = ["first", "", "and </s> third"]

    ids, lens = tokenizer.encode_batch(texts)

    assert (ids.dtype, lens.dtype) == (np.int32, np.int32)
    assert ids.tolist() == [token for text in texts for token in tokenizer.encode(text)]
    assert lens.tolist() == [len(tokenizer.encode(text)) for text in texts]


def test_the_vocabulary_size_has_three_names(tokenizer: SPTokenizer | HFTokenizer) -> None:
    assert tokenizer.n_words == tokenizer.vocab_size == tokenizer.get_vocab_size()


def test_ids_may_be_an_array(tokenizer: SPTokenizer | HFTokenizer) -> None:
    ids = np.array(tokenizer.encode("text"), dtype=np.uint16)

    assert tokenizer.decode(ids) == "text"


@pytest.mark.parametrize("outside", [-100, 600])
def test_an_id_outside_the_vocabulary_is_an_error(
    tokenizer: SPTokenizer | HFTokenizer, outside: int
) -> None:
    with pytest.raises(VocabularyError, match=rf"cannot decode id {outside}, expected 0 to"):
        tokenizer.decode([5, outside])


def test_a_copy_for_another_process_is_the_same(tokenizer: SPTokenizer | HFTokenizer) -> None:
    """A pickled tokenizers object no longer keeps special tokens in text as text."""
    copy = pickle.loads(pickle.dumps(tokenizer))

    assert copy.encode("a </s> b", eos=True) == tokenizer.encode("a </s> b", eos=True)


# --- SentencePiece ----------------------------------------------------------------------------


def test_special_ids_of_sentencepiece_are_those_of_the_model(sp_path: Path) -> None:
    tokenizer = SPTokenizer(sp_path.parent)

    assert tokenizer.vocab_size == 600
    assert (tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (0, 1, 2, -1)


def test_an_eos_that_is_read_from_text_is_refused(tmp_path: Path) -> None:
    """A model trained with ``--user_defined_symbols=</s>`` cannot separate documents."""
    prefix = str(tmp_path / "user")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()),
        model_prefix=prefix,
        vocab_size=600,
        byte_fallback=True,
        user_defined_symbols=["</s>"],
        minloglevel=2,
    )

    assert SPTokenizer(f"{prefix}.model").eos_id == -1


@pytest.mark.parametrize("content", [b"", b"not a model", "half"])
def test_a_damaged_model_is_an_error(sp_path: Path, tmp_path: Path, content: bytes | str) -> None:
    damaged = tmp_path / "tokenizer.model"
    model = sp_path.read_bytes()
    damaged.write_bytes(model[: len(model) // 2] if isinstance(content, str) else content)

    with pytest.raises(ConfigError, match=r"tokenizer\.model: .* not a SentencePiece model"):
        SPTokenizer(damaged)


# --- Hugging Face -----------------------------------------------------------------------------


def test_tokenizer_config_wins_over_the_special_tokens_map(hf_path: Path) -> None:
    tokenizer = HFTokenizer(hf_path / "tokenizer.json")

    assert (tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (0, 1, 2, -1)


def test_symbols_that_are_pieces_of_a_unigram_model_stay_text(tmp_path: Path) -> None:
    """Models of the T5 family hold ``</s>`` as a piece that is found in any text."""
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((char, -2.0) for char in "ab</s>")]
    tokenizer = saved_hf(
        Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False)),
        tmp_path,
        eos_token="</s>",
        unk_token="<unk>",
    )

    ids = tokenizer.encode("a</s>b")

    assert tokenizer.eos_id == 1
    assert tokenizer.eos_id not in ids
    assert len(ids) == len("a</s>b")


def test_an_eos_that_is_not_marked_as_special_stays_text(tmp_path: Path) -> None:
    plain = Tokenizer(models.BPE({char: at for at, char in enumerate("abc</s>")}, []))
    plain.add_tokens([AddedToken("</s>", special=False)])
    tokenizer = saved_hf(plain, tmp_path, eos_token="</s>")

    assert tokenizer.eos_id not in tokenizer.encode("a</s>b")


def test_an_eos_that_is_ordinary_text_is_an_error(tmp_path: Path) -> None:
    plain = Tokenizer(models.BPE({"a": 0, "|": 1}, []))

    with pytest.raises(ConfigError, match=r"'\|' \(id 1\) is ordinary text"):
        saved_hf(plain, tmp_path, eos_token="|")


def test_a_special_token_that_is_named_but_missing_is_an_error(tmp_path: Path) -> None:
    plain = Tokenizer(models.BPE({"a": 0}, []))

    with pytest.raises(ConfigError, match=r"has no token '</s>'.* names as eos_token"):
        saved_hf(plain, tmp_path, eos_token="</s>")


def test_eos_without_a_name_is_absent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    tokenizer = saved_hf(Tokenizer(models.BPE({"a": 0}, [])), tmp_path)

    assert tokenizer.eos_id == -1
    assert "Hugging Face, 1 ids, no EOS" in caplog.text
    with pytest.raises(ConfigError, match="EOS is requested, but the tokenizer has none"):
        tokenizer.encode("a", eos=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [("tokenizer.json", "not a Hugging Face"), ("tokenizer_config.json", "not a JSON file")],
)
def test_a_damaged_file_is_an_error(hf_path: Path, tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "tokenizer.json").write_bytes((hf_path / "tokenizer.json").read_bytes())
    (tmp_path / name).write_text('{"model": ')

    with pytest.raises(ConfigError, match=message):
        HFTokenizer(tmp_path)


# --- choosing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", [None, "", "sptoken", "SentencePiece", " sp ", "SPM\n"])
def test_sentencepiece_is_chosen_by_name_or_recognised(sp_path: Path, backend: str | None) -> None:
    assert isinstance(build_tokenizer(job_config(backend, tokenizer_path=sp_path)), SPTokenizer)


@pytest.mark.parametrize("backend", [None, "", "hf", " HuggingFace "])
def test_hugging_face_is_chosen_by_name_or_recognised(hf_path: Path, backend: str) -> None:
    assert isinstance(build_tokenizer(job_config(backend, hf_assets_path=hf_path)), HFTokenizer)


@pytest.mark.parametrize("backend", ["sp", "hf"])
def test_tokenizer_path_is_read_before_hf_assets_path(
    sp_path: Path, hf_path: Path, tmp_path: Path, backend: str
) -> None:
    """TorchTitan sets ``hf_assets_path`` by default, so the user's choice is the other key."""
    path = sp_path if backend == "sp" else hf_path
    first = job_config(backend, tokenizer_path=path, hf_assets_path=tmp_path)
    second = job_config(backend, tokenizer_path=None, hf_assets_path=path)

    assert build_tokenizer(first).path == build_tokenizer(second).path


def test_a_configuration_may_be_a_mapping(sp_path: Path) -> None:
    config = {"model": {"tokenizer_path": str(sp_path)}}

    assert isinstance(build_tokenizer(config), SPTokenizer)


def test_tiktoken_is_not_implemented_and_alternatives_are_named() -> None:
    with pytest.raises(NotImplementedError, match="sptoken"):
        build_tokenizer(job_config("tiktoken"))


def test_an_unknown_backend_is_an_error_that_lists_the_choices() -> None:
    with pytest.raises(ConfigError, match=r"'bpe', expected one of 'sptoken', .*'huggingface'"):
        build_tokenizer(job_config("bpe"))


def test_a_configuration_without_a_path_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"neither model\.tokenizer_path nor"):
        build_tokenizer(job_config("sp"))


def test_the_kind_is_determined_by_file_names(sp_path: Path, hf_path: Path) -> None:
    for path in (sp_path, sp_path.parent):
        assert isinstance(load_tokenizer(path), SPTokenizer)
    for path in (hf_path, hf_path / "tokenizer.json"):
        assert isinstance(load_tokenizer(path), HFTokenizer)


def test_a_folder_with_both_kinds_is_hugging_face(
    sp_path: Path, hf_path: Path, tmp_path: Path
) -> None:
    """Llama 3's ``tokenizer.model`` is not a SentencePiece model; its ``tokenizer.json`` works."""
    for path in (sp_path, hf_path / "tokenizer.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())

    assert isinstance(load_tokenizer(tmp_path), HFTokenizer)


@pytest.mark.parametrize("name", ["missing.model", "missing.json", "."])
def test_a_path_without_a_tokenizer_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"no such file|this folder has none of tokenizer"):
        load_tokenizer(tmp_path / name)


def test_a_tokenizer_that_cannot_encode_every_text_is_named(tmp_path: Path) -> None:
    """The library raises a bare exception, without the file."""
    words = Tokenizer(models.WordLevel({"one": 0, "</s>": 1}))

    with pytest.raises(
        ConfigError, match=r"tokenizer\.json: the tokenizer cannot encode every .*UNK"
    ):
        saved_hf(words, tmp_path, eos_token="</s>").encode("two")
