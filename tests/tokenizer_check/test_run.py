"""At the start of a run: an error that shows both tokenizers, or a warning where that is asked."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from blendtitan.config import BlendConfig
from blendtitan.dataset.build import read_catalog
from blendtitan.errors import CorruptShardError, TokenizerMismatchError
from blendtitan.storage.list_forms import find_shards
from blendtitan.storage.record_files import record_path
from blendtitan.tokenizer_check import run as check_module
from blendtitan.tokenizer_check.fit import knows_its_own
from blendtitan.tokenizer_check.run import TokenizerCheck
from blendtitan.tokenizers import Tokenizer, load_tokenizer
from tests.tokenizer_check.conftest import WriteText

Tokenizers = dict[str, Tokenizer]


def checked(
    folder: Path, tokenizer: Tokenizer, *, action: str = "error", **settings: Any
) -> list[str]:
    """The warnings of the check of a run on this folder; raises what it raises."""
    settings = {"eod_token_id": tokenizer.eos_id} | settings
    config = BlendConfig(data_file_list=folder, seq_length=8, **settings)
    check = TokenizerCheck(config, tokenizer, action=action)
    read_catalog(config, check=check)
    return check.warnings


def test_shards_of_the_runs_tokenizer_are_read_without_a_word(
    tokenizers: Tokenizers, write_text: WriteText, tmp_path: Path
) -> None:
    write_text("data/web/a", tokenizers["byte-level"], recorded=True)
    write_text("data/code/a", tokenizers["byte-level"])

    assert checked(tmp_path / "data", tokenizers["byte-level"]) == []


@pytest.mark.parametrize("recorded", [True, False])
def test_a_shard_of_another_tokenizer_is_an_error_that_shows_both(
    tokenizers: Tokenizers, write_text: WriteText, tmp_path: Path, recorded: bool
) -> None:
    """One corpus of three; without a record, its tokens give it away."""
    for corpus in ("books", "code"):
        write_text(f"data/{corpus}/a", tokenizers["byte-level"])
    wrong = write_text("data/web/a", tokenizers["byte-level, digits by three"], recorded=recorded)

    with pytest.raises(TokenizerMismatchError) as caught:
        checked(tmp_path / "data", tokenizers["byte-level"])
    text = str(caught.value)
    assert r"\n" not in text
    assert "1 of 3 shards do not belong to the tokenizer of this run" in text
    assert "the run: huggingface 'bytes" in text
    assert f"shards: {wrong} (corpus 'web'): " in text
    assert ("made with huggingface 'digits" if recorded else "are lost when their text") in text
    assert 'set blendcorpus.tokenizer_check = "warn"' in text


def test_a_mismatch_is_a_warning_on_request(
    tokenizers: Tokenizers, write_text: WriteText, tmp_path: Path
) -> None:
    write_text("data/web/a", tokenizers["sp bpe"], recorded=True)
    warnings = checked(tmp_path / "data", tokenizers["sp unigram"], action="warn")

    assert len(warnings) == 1
    assert "1 of 1 shards do not belong" in warnings[0]


def test_another_eod_is_a_mismatch_only_if_documents_are_separated(
    tokenizers: Tokenizers, write_text: WriteText, tmp_path: Path
) -> None:
    own = tokenizers["byte-level"]
    write_text("data/web/a", own, recorded=True)

    with pytest.raises(
        TokenizerMismatchError, match="the same tokenizer, but documents end in EOD"
    ):
        checked(tmp_path / "data", own, eod_token_id=own.eos_id + 1)
    assert checked(tmp_path / "data", own, eod_token_id=None, append_eod=False) == []


def test_a_model_and_its_conversion_are_compared_by_tokens(
    tokenizers: Tokenizers, write_text: WriteText, tmp_path: Path
) -> None:
    """Hashes of two libraries cannot be compared, but what they do with the text can."""
    write_text("data/web/a", tokenizers["sp bpe"], recorded=True)

    with pytest.raises(TokenizerMismatchError, match=r"made with sentencepiece .*, probed: of"):
        checked(tmp_path / "data", tokenizers["byte-level"])


def test_too_few_tokens_to_tell_are_a_warning_with_the_figures(
    tokenizers: Tokenizers, write_shard: Any, tmp_path: Path
) -> None:
    write_shard("data/web/a", [[300, 301, 0]])
    warnings = checked(tmp_path / "data", tokenizers["byte-level"])

    assert len(warnings) == 1
    assert "cannot determine whether the tokenizer of this run made" in warnings[0]
    assert "of 1 pairs of tokens" in warnings[0]


def test_a_tokenizer_that_cannot_decode_refuses_no_shard(
    tokenizers: Tokenizers, folders: dict[str, Path], write_text: WriteText, tmp_path: Path
) -> None:
    """Without a decoder pieces are joined by spaces: not even its own tokens come back."""
    content = json.loads((folders["word pieces"] / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(content | {"decoder": None}))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    write_text("data/web/a", tokenizers["word pieces"])
    warnings = checked(tmp_path / "data", load_tokenizer(tmp_path))

    assert len(warnings) == 1
    assert "cannot determine whether" in warnings[0]


def test_every_tokenizer_that_can_decode_is_able_to_refuse(tokenizers: Tokenizers) -> None:
    assert [name for name, own in tokenizers.items() if not knows_its_own(own)] == []


def test_a_record_that_is_damaged_is_an_error_that_names_it(
    tokenizers: Tokenizers, write_text: WriteText, tmp_path: Path
) -> None:
    prefix = write_text("data/web/a", tokenizers["byte-level"])
    record_path(prefix).write_text("{}")

    with pytest.raises(CorruptShardError, match=r"a\.tokenizer\.json: expected the record"):
        checked(tmp_path / "data", tokenizers["byte-level"])


def test_a_good_answer_is_kept_as_long_as_shards_and_tokenizer_stay(
    tokenizers: Tokenizers,
    write_text: WriteText,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A cached catalog loads in microseconds per shard: the check must not cost more."""
    own = tokenizers["byte-level"]
    cache: dict[str, Any] = {"data_cache_path": tmp_path / "cache"}
    prefix = write_text("data/web/a", own)
    checked(tmp_path / "data", own, **cache)
    reads: list[str] = []
    really_read = check_module.read_record
    monkeypatch.setattr(check_module, "read_record", lambda p: (reads.append(p), really_read(p))[1])
    checked(tmp_path / "data", own, **cache)
    unread = list(reads)
    os.utime(f"{prefix}.bin", ns=(1, 1))
    checked(tmp_path / "data", own, **cache)

    assert unread == []
    assert reads == [str(prefix)]
    with pytest.raises(TokenizerMismatchError):
        checked(tmp_path / "data", tokenizers["byte-level, reordered"], **cache)


def test_an_answer_that_is_damaged_or_bad_is_not_kept(
    tokenizers: Tokenizers, write_text: WriteText, tmp_path: Path
) -> None:
    """A mismatch that was allowed once is an error again when it is not."""
    cache: dict[str, Any] = {"data_cache_path": tmp_path / "cache"}
    write_text("data/web/a", tokenizers["sp bpe"])
    checked(tmp_path / "data", tokenizers["sp unigram"], action="warn", **cache)
    with pytest.raises(TokenizerMismatchError):
        checked(tmp_path / "data", tokenizers["sp unigram"], **cache)
    checked(tmp_path / "data", tokenizers["sp bpe"], **cache)
    for path in (tmp_path / "cache").glob("tokenizer-check-*"):
        path.write_text('{"warnings": 7}')

    assert checked(tmp_path / "data", tokenizers["sp bpe"], **cache) == []


def test_every_corpus_is_looked_at_however_many_there_are(
    tokenizers: Tokenizers, write_text: WriteText, tmp_path: Path
) -> None:
    own = tokenizers["byte-level"]
    good = write_text("good", own)
    wrong = write_text("wrong", tokenizers["byte-level, reordered"])
    for corpus in range(100):
        folder = tmp_path / f"data/corpus_{corpus:02d}"
        folder.mkdir(parents=True)
        for suffix in (".bin", ".idx"):
            source = wrong if corpus == 77 else good
            (folder / f"a{suffix}").write_bytes(Path(f"{source}{suffix}").read_bytes())

    with pytest.raises(TokenizerMismatchError, match=r"1 of 100 shards(?s:.*)corpus 'corpus_77'"):
        checked(tmp_path / "data", own)


def copied(prefix: Path, folder: Path, number: int) -> None:
    """Copies of a shard, with its record if it has one."""
    folder.mkdir(parents=True)
    for shard in range(number):
        for source in prefix.parent.glob(f"{prefix.name}.*"):
            (folder / f"{shard:02d}{source.name.removeprefix(prefix.name)}").write_bytes(
                source.read_bytes()
            )


def test_all_shards_of_a_tokenizer_are_counted_though_only_some_are_probed(
    tokenizers: Tokenizers, write_text: WriteText, tmp_path: Path
) -> None:
    """Their records name the same tokenizer, so what is true of one is true of all."""
    wrong = write_text("wrong", tokenizers["sp bpe"], recorded=True)
    copied(wrong, tmp_path / "data/web", 60)

    with pytest.raises(TokenizerMismatchError) as caught:
        checked(tmp_path / "data", tokenizers["byte-level"])
    lines = str(caught.value).splitlines()
    assert lines[0].endswith(": 60 of 60 shards do not belong to the tokenizer of this run.")
    assert "and 57 more (corpus 'web'): made with sentencepiece" in lines[2]
    assert ", probed in part: of" in lines[2]
    assert len(lines) == 4


def test_a_count_of_a_part_of_the_shards_says_so(
    tokenizers: Tokenizers, write_text: WriteText, tmp_path: Path
) -> None:
    """Without records, nothing is known about the shards that were not probed."""
    copied(write_text("wrong", tokenizers["byte-level"]), tmp_path / "data/web", 60)

    with pytest.raises(
        TokenizerMismatchError,
        match="48 of the 48 shards that were compared do not belong to the tokenizer of this run; "
        "the run has 60",
    ):
        checked(tmp_path / "data", tokenizers["sp bpe"])


def test_a_shard_whose_own_tokens_match_is_never_a_mismatch(
    tokenizers: Tokenizers, write_text: WriteText, tmp_path: Path
) -> None:
    """Its record may be a conversion of the run's tokenizer, or simply be wrong."""
    own = tokenizers["sp bpe"]
    wrong = write_text("data/web/a", tokenizers["byte-level"], recorded=True)
    good = write_text("data/code/a", own, recorded=True)
    record = json.loads(record_path(good).read_text())
    other = json.loads(record_path(wrong).read_text())
    record_path(good).write_text(json.dumps({**other, "tokens": record["tokens"]}))

    with pytest.raises(TokenizerMismatchError, match=r"1 of 2 shards(?s:.*)corpus 'web'"):
        checked(tmp_path / "data", own)


def test_a_tokenizer_with_shards_that_match_is_not_another(
    tokenizers: Tokenizers, write_text: WriteText, tmp_path: Path
) -> None:
    """One shard of its 60 was overwritten, and says nothing about those that were not probed."""
    own = tokenizers["sp bpe"]
    wrong = write_text("wrong", tokenizers["byte-level"], recorded=True)
    copied(write_text("good", own, recorded=True), tmp_path / "data/web", 60)
    other = json.loads(record_path(wrong).read_text())
    for prefix in find_shards(tmp_path / "data"):
        path = record_path(prefix)
        path.write_text(json.dumps({**other, "tokens": json.loads(path.read_text())["tokens"]}))
    copied(wrong, tmp_path / "data/code", 1)

    with pytest.raises(TokenizerMismatchError, match="1 of the 25 shards that were compared do "):
        checked(tmp_path / "data", own)
