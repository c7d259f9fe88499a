"""Two tokenizers have one identity if and only if they give every text the same ids."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from blendtitan.identity import TokenizerIdentity
from blendtitan.tokenizers import HFTokenizer, SPTokenizer, identity_of
from tests.tokenizers.conftest import TEXT

EDITS: dict[str, Any] = {
    "another vocabulary order": lambda c: c["model"]["vocab"].update(
        {"a": c["model"]["vocab"]["b"], "b": c["model"]["vocab"]["a"]}
    ),
    "another order of merges": lambda c: c["model"]["merges"].reverse(),
    "a normalizer": lambda c: c.update(normalizer={"type": "NFC"}),
    "a prepended space": lambda c: c["pre_tokenizer"].update(add_prefix_space=True),
    "no splitting pattern": lambda c: c["pre_tokenizer"].update(use_regex=False),
    "an added token": lambda c: c["added_tokens"].append(
        c["added_tokens"][0] | {"id": 9999, "content": "<new>"}
    ),
    "whole words without merging": lambda c: c["model"].update(ignore_merges=True),
    "dropout": lambda c: c["model"].update(dropout=0.1),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE ``tokenizer.json``."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    path = tmp_path_factory.mktemp("saved") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def identity(
    folder: Path, content: dict[str, Any], *, indent: int | None = None
) -> TokenizerIdentity:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(content, indent=indent))
    return identity_of(HFTokenizer(folder), eod_id=0)


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_changes_of_ids_change_the_identity(saved: Path, tmp_path: Path, edit: Any) -> None:
    content = json.loads(saved.read_text())
    before = identity(tmp_path, content)
    edit(content)

    assert not identity(tmp_path, content).gives_ids_of(before)


def test_changes_without_effect_on_ids_keep_the_identity(saved: Path, tmp_path: Path) -> None:
    """Formatting, padding, truncation, decoding, and tokens added around a text."""
    content = json.loads(saved.read_text())
    before = identity(tmp_path, content)
    tokenizer = Tokenizer.from_file(str(saved))
    tokenizer.enable_padding(pad_id=0, pad_token="<|end|>")
    tokenizer.enable_truncation(8)
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    other = dict(reversed(json.loads(tokenizer.to_str()).items()))

    assert identity(tmp_path / "other", other, indent=1).gives_ids_of(before)


def test_files_of_older_releases_of_the_library_have_the_same_identity(
    saved: Path, tmp_path: Path
) -> None:
    """They wrote merges as texts, and left out defaults."""
    content = json.loads(saved.read_text())
    before = identity(tmp_path, content)
    model = content["model"]
    model["merges"] = [" ".join(merge) for merge in model["merges"]]
    for key in ("ignore_merges", "byte_fallback", "dropout", "unk_token"):
        del model[key]
    del content["pre_tokenizer"]["use_regex"]
    found = identity(tmp_path, content)

    assert found.gives_ids_of(before)
    saved_again = json.loads(tokenizers.Tokenizer.from_str(json.dumps(content)).to_str())
    assert identity(tmp_path, saved_again).gives_ids_of(before)


def test_an_older_metaspace_has_the_same_identity(tmp_path: Path) -> None:
    tokenizer = Tokenizer(
        models.Unigram([("<unk>", 0.0), ("\u2581a", -1.0), ("a", -2.0)], 0, False)
    )
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    content = json.loads(tokenizer.to_str())
    old = content | {
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "add_prefix_space": True}
    }

    assert identity(tmp_path, old).gives_ids_of(identity(tmp_path, content))


def test_eod_is_compared_apart_from_the_hash(saved: Path) -> None:
    """With the same ids and another EOD, the error can name the setting to change."""
    tokenizer = HFTokenizer(saved)

    assert identity_of(tokenizer, 0).gives_ids_of(identity_of(tokenizer, 1))
    assert not identity_of(tokenizer, 0).is_same(identity_of(tokenizer, 1))
    assert identity_of(tokenizer, 0).is_same(identity_of(tokenizer, 0))


def test_a_sentencepiece_model_is_known_by_its_bytes(sp_path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.model"
    copy.write_bytes(sp_path.read_bytes())
    here, there = (identity_of(SPTokenizer(path), 2) for path in (sp_path, copy))

    assert here.gives_ids_of(there)
    assert there.name == f"{tmp_path.name}/copy.model"


def test_a_model_and_its_conversion_cannot_be_compared_by_hash(sp_path: Path, saved: Path) -> None:
    model, converted = identity_of(SPTokenizer(sp_path), 2), identity_of(HFTokenizer(saved), 2)

    assert not model.can_be_compared(converted)
    assert not model.gives_ids_of(converted)
