"""Repair writes the bytes of a correct shard, or changes nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from blendtitan.cli import main
from blendtitan.errors import CorruptShardError, MixedEodError, ShardError, UncountedEodError
from blendtitan.identity import TokenizerIdentity
from blendtitan.shards import repair
from blendtitan.shards.repair import Layout, repair_shard
from blendtitan.storage.ends import find_document_ends
from blendtitan.storage.reader import ShardIndex, file_signature
from blendtitan.storage.record_files import TokenizerRecord, read_record, record_path
from blendtitan.storage.record_writer import encode_record
from blendtitan.storage.records import DocumentEnds, read_ends
from blendtitan.storage.writer import encode_index
from tests.conftest import EOD, WriteShard
from tests.shards.conftest import WriteUncounted

DOCUMENTS = [[5, 6, EOD], [EOD], [8, EOD, 10, EOD]]


def files(prefix: Path) -> dict[str, bytes]:
    """All but the record of document ends, which holds times of change."""
    return {
        path.name: path.read_bytes()
        for path in sorted(prefix.parent.glob("*.*"))
        if not path.name.endswith(".ends.json")
    }


def recorded_ends(prefix: Path) -> DocumentEnds | None:
    stamp = file_signature(str(prefix))
    return stamp and read_ends(str(prefix), stamp, EOD)


@pytest.mark.parametrize("dtype", ["<u2", "<i4"])
def test_a_repaired_shard_has_the_bytes_of_a_correct_shard(
    write_uncounted: WriteUncounted, write_shard: WriteShard, dtype: str
) -> None:
    right = files(write_shard("right/web", DOCUMENTS, dtype))
    prefix = write_uncounted("wrong/web", DOCUMENTS, dtype)
    before = files(prefix)

    assert repair_shard(prefix, eod_id=EOD) == ["the EODs are counted"]
    assert files(prefix) == {**right, "web.idx.before-repair": before["web.idx"]}


def test_a_repaired_shard_keeps_the_record_of_its_tokenizer(
    write_uncounted: WriteUncounted,
) -> None:
    """Its documents and the tokens in its .bin, which the record counts, stay the same."""
    prefix = write_uncounted("web", DOCUMENTS)
    tokenizer = TokenizerIdentity(hash="1:a", name="t", kind="huggingface", vocab_size=99, eod_id=2)
    record = TokenizerRecord(tokenizer, documents=3, tokens=8)
    record_path(prefix).write_bytes(encode_record(record))
    repair_shard(prefix, eod_id=EOD)
    index = ShardIndex.open(prefix)

    assert read_record(prefix) == record
    assert record.describes(documents=index.num_documents, tokens=index.num_tokens)


def test_a_repair_records_the_document_ends_that_it_proved(
    write_uncounted: WriteUncounted,
) -> None:
    """They equal the ends that a check would find; an earlier record is not about the new .idx."""
    prefix = write_uncounted("web", DOCUMENTS)
    repair_shard(prefix, eod_id=EOD)
    recorded = recorded_ends(prefix)

    assert recorded == find_document_ends(ShardIndex.open(prefix), EOD, allowance=1 << 30)
    assert recorded == DocumentEnds(EOD, 3, 3, 3, num_eod=3, num_begin=1)


def test_a_repair_records_nothing_of_tokens_that_changed_meanwhile(
    write_uncounted: WriteUncounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = write_uncounted("web", DOCUMENTS)
    really = repair._proved_ends

    def proved_ends(prefix: Path, layout: Layout, eod_id: int) -> DocumentEnds | None:
        ends = really(prefix, layout, eod_id)
        os.utime(f"{prefix}.bin", (7, 7))
        return ends

    monkeypatch.setattr(repair, "_proved_ends", proved_ends)
    Path(f"{prefix}.ends.json").write_bytes(b"of the old .idx")
    repair_shard(prefix, eod_id=EOD)

    assert not Path(f"{prefix}.ends.json").exists()


def test_a_sound_shard_is_not_changed(
    write_uncounted: WriteUncounted, write_shard: WriteShard
) -> None:
    """The command can therefore be run again."""
    repaired, sound = write_uncounted("a/web", DOCUMENTS), write_shard("b/web", DOCUMENTS)
    repair_shard(repaired, eod_id=EOD)
    after = files(repaired)

    assert not repair_shard(repaired, eod_id=EOD)
    assert not repair_shard(sound, eod_id=EOD)
    assert files(repaired) == after
    assert files(sound).keys() == {"web.bin", "web.idx"}


def test_an_unproved_correction_is_refused(write_uncounted: WriteUncounted) -> None:
    """One document would end in another token, perhaps because the .bin is truncated."""
    prefix = write_uncounted("web", [[5, EOD], [6, 7, 8], [9, EOD]])
    before = files(prefix)

    with pytest.raises(MixedEodError, match=r"2 of 3 documents end in EOD.*is document 1\."):
        repair_shard(prefix, eod_id=EOD)
    with pytest.raises(MixedEodError, match="0 of 3 documents end in EOD"):
        repair_shard(prefix, eod_id=3)
    assert files(prefix) == before


def write_index(prefix: Path, lens: list[int], documents: list[int]) -> Path:
    """Write an ``.idx`` with these lengths and this document index, for any ``.bin``."""
    index = encode_index(np.array(lens, np.int32), np.array(documents), dtype=np.dtype("<u2"))
    Path(f"{prefix}.idx").write_bytes(b"".join(index))
    return prefix


def test_the_last_sequence_of_each_document_that_has_one_is_counted(tmp_path: Path) -> None:
    """Megatron-LM appends EOD there, but not to an empty text: documents 1, 2 and 4 here."""
    documents = [0, 2, 2, 2, 3, 3]
    right = b"".join(
        encode_index(np.array([1, 2, 2], np.int32), np.array(documents), dtype=np.dtype("<u2"))
    )
    (tmp_path / "web.bin").write_bytes(np.array([5, 6, EOD, 7, EOD], "<u2").tobytes())
    prefix = write_index(tmp_path / "web", [1, 1, 1], documents)

    with pytest.raises(UncountedEodError, match="one token more for each of 2 documents"):
        ShardIndex.open(prefix)
    assert repair_shard(prefix, eod_id=EOD) == ["the EODs are counted"]
    assert (tmp_path / "web.idx").read_bytes() == right


def test_a_lost_document_index_is_restored_if_every_sequence_ends_in_eod(
    write_shard: WriteShard,
) -> None:
    prefix = write_shard("web", DOCUMENTS)
    right = Path(f"{prefix}.idx").read_bytes()
    write_index(prefix, [3, 1, 4], [0])

    with pytest.raises(CorruptShardError, match=r"lost the document index.*blendtitan repair"):
        ShardIndex.open(prefix)
    assert repair_shard(prefix, eod_id=EOD) == ["the document index is restored"]
    assert Path(f"{prefix}.idx").read_bytes() == right


def test_a_lost_document_index_is_not_guessed(write_shard: WriteShard) -> None:
    """A sequence without EOD may be a sentence of a longer document."""
    prefix = write_index(write_shard("web", [[5, 6], [7, EOD]]), [2, 2], [0])
    before = files(prefix)

    with pytest.raises(MixedEodError, match="every sequence as a document, 1 of 2 documents"):
        repair_shard(prefix, eod_id=EOD)
    assert files(prefix) == before


def move_pointer(prefix: Path) -> None:
    with Path(f"{prefix}.idx").open("r+b") as idx:
        idx.seek(34 + 3 * 4 + 8)
        idx.write(b"\x02")


def test_wrong_pointers_are_computed_from_lengths_that_describe_the_bin(
    write_shard: WriteShard,
) -> None:
    """Opening such a shard detects nothing, but some documents are read from wrong places."""
    prefix = write_shard("web", DOCUMENTS)
    right = Path(f"{prefix}.idx").read_bytes()
    move_pointer(prefix)
    ShardIndex.open(prefix)

    assert repair_shard(prefix, eod_id=EOD) == ["the pointers are computed from the lengths"]
    assert Path(f"{prefix}.idx").read_bytes() == right


def test_pointers_are_not_computed_from_lengths_that_cut_documents(
    write_shard: WriteShard,
) -> None:
    """The sum of the lengths is right, but some lengths are wrong, as the tokens show."""
    prefix = write_index(write_shard("web", DOCUMENTS), [2, 2, 4], [0, 1, 2, 3])
    move_pointer(prefix)
    before = files(prefix)

    with pytest.raises(MixedEodError, match="pointers computed from the lengths, 2 of 3 documents"):
        repair_shard(prefix, eod_id=EOD)
    assert files(prefix) == before


def test_a_shard_with_two_known_faults_is_repaired_at_once(
    write_uncounted: WriteUncounted, write_shard: WriteShard
) -> None:
    right = files(write_shard("right/web", DOCUMENTS))
    prefix = write_uncounted("wrong/web", DOCUMENTS)
    move_pointer(prefix)

    assert len(repair_shard(prefix, eod_id=EOD)) == 2
    assert files(prefix)["web.idx"] == right["web.idx"]


def test_a_shard_with_unknown_damage_is_refused(write_shard: WriteShard) -> None:
    prefix = write_shard("web", DOCUMENTS)
    with Path(f"{prefix}.bin").open("ab") as file:
        file.write(bytes(4))
    before = files(prefix)

    with pytest.raises(CorruptShardError, match=r"web\.bin: found 20 bytes, expected 16"):
        repair_shard(prefix, eod_id=EOD)
    assert files(prefix) == before


@pytest.mark.parametrize(
    ("documents", "reason"),
    [
        ([[5, EOD], [6, 7]], "1 of 2 documents end in EOD .*Tokenise the shard again, or train"),
        ([[5, EOD], [-1, EOD]], "document 1 holds the token id -1, expected ids from 0"),
    ],
)
def test_a_shard_that_stays_wrong_after_corrections_is_refused(
    write_shard: WriteShard,
    capsys: pytest.CaptureFixture[str],
    documents: list[list[int]],
    reason: str,
) -> None:
    prefix = write_shard("web", documents, "<i4")
    before = files(prefix)

    assert main(["repair", str(prefix), "--eod-id", str(EOD)]) == 1
    printed = capsys.readouterr()
    assert "0 repaired, 0 without faults" in printed.out
    assert re.search(f"not repairable: .*{reason}", printed.err)
    assert files(prefix) == before


def test_uncounted_eods_do_not_hide_a_token_id_below_0(write_uncounted: WriteUncounted) -> None:
    prefix = write_uncounted("web", [[5, EOD], [-1, EOD]], "<i4")
    before = files(prefix)

    with pytest.raises(CorruptShardError, match=r"not repairable: .*document 1 .* token id -1"):
        repair_shard(prefix, eod_id=EOD)
    assert files(prefix) == before


def test_an_older_kept_file_is_not_overwritten(write_uncounted: WriteUncounted) -> None:
    prefix = write_uncounted("web", DOCUMENTS)
    Path(f"{prefix}.idx.before-repair").write_bytes(b"of another time")
    before = files(prefix)

    with pytest.raises(ShardError, match=r"before-repair: exists, and differs from"):
        repair_shard(prefix, eod_id=EOD)
    assert files(prefix) == before


def test_the_command_repairs_some_shards_and_names_the_others(
    write_uncounted: WriteUncounted, write_shard: WriteShard, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_uncounted("tokens/a", DOCUMENTS).parent
    write_uncounted("tokens/b", [[5, 6], [7, EOD]])
    write_shard("tokens/c", DOCUMENTS)

    assert main(["repair", str(folder), "--eod-id", "2"]) == 1
    shown = capsys.readouterr()
    assert f"{folder}/a: repaired" in shown.out
    assert "1 repaired, 1 without faults" in shown.out
    assert f"{folder}/b: with one more token each, 1 of 2 documents" in shown.err
    assert "1 of 3 shards were not changed" in shown.err


# Repairs a shard again and again from the same start, killed before its first change of the
# folder, then before its second, and so on, until one is not killed.
KILLED_AT_EVERY_STEP = """
import os, signal, sys
from pathlib import Path
from blendtitan.shards.repair import repair_shard

prefix = Path(sys.argv[1])
idx, kept = Path(f"{prefix}.idx"), Path(f"{prefix}.idx.before-repair")
old = idx.read_bytes()

def repair_and_die(step):
    steps = iter(range(step))
    def hook(event, arguments):
        if event in ("open", "os.link", "os.rename", "os.remove") and next(steps, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    repair_shard(prefix, eod_id=2)
    os._exit(0)

states = []
for step in range(1000):
    idx.write_bytes(old)
    kept.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        repair_and_die(step)
    status = os.waitpid(child, 0)[1]
    states.append((idx.read_bytes() == old, kept.exists() and kept.read_bytes() == old))
    new = idx.read_bytes()
    assert bool(repair_shard(prefix, eod_id=2)) == (new == old), step
    assert kept.read_bytes() == old
    if os.WIFEXITED(status):
        assert os.waitstatus_to_exitcode(status) == 0
        break
print(*dict.fromkeys(states), new.hex(), sep="|")
"""


def test_a_killed_repair_leaves_the_old_index_or_the_new_and_can_be_repeated(
    write_uncounted: WriteUncounted, write_shard: WriteShard
) -> None:
    right = Path(f"{write_shard('right/web', DOCUMENTS)}.idx").read_bytes()
    prefix = write_uncounted("wrong/web", DOCUMENTS)
    command = [sys.executable, "-c", KILLED_AT_EVERY_STEP, str(prefix)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().split("|") == [
        "(True, False)",  # before
        "(True, True)",  # the old one has its second name
        "(False, True)",  # the new one has the first
        right.hex(),
    ]
    assert files(prefix).keys() == {"web.bin", "web.idx", "web.idx.before-repair"}
