import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from blendtitan.errors import OutputError
from blendtitan.prepare import claims
from blendtitan.prepare.claims import Claims
from blendtitan.storage.atomic_files import Process


def held_elsewhere(path: Path, host: str, pid: int) -> Path:
    machine, _, started = Process.current().name.split("-")
    machine = machine if host == socket.gethostname() else "0000aaaa"
    path.write_text(f"{machine}-{pid}-{started}")
    return path


def ended_pid() -> int:
    """The id of a process that has ended, and whose parent has not waited for it."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    ended.append(process)
    return process.pid


ended: list[subprocess.Popen[bytes]] = []


def test_only_one_process_has_a_claim_until_it_is_released(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    with Claims().claimed(path) as first, Claims().claimed(path) as second:
        assert (first, second) == (True, False)
    with Claims().claimed(path) as third:
        assert third
    assert not path.exists()


def test_a_claim_is_released_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Claims().claimed(tmp_path / "claim"):
        _ = 1 / 0

    assert list(tmp_path.iterdir()) == []


def test_a_claim_of_a_process_that_has_ended_is_taken_over_at_once(tmp_path: Path) -> None:
    """Even if no parent waits for killed processes, as in many containers."""
    path = held_elsewhere(tmp_path / "claim", socket.gethostname(), ended_pid())
    with Claims().claimed(path) as taken:
        assert taken


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{}", b"3", b"\xff", b"[" * 10**5])
def test_a_damaged_claim_is_taken_over_after_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    """Its holder was perhaps killed while writing it, so the claim does not name a process."""
    monkeypatch.setattr(claims, "_UNREADABLE_SECONDS", 0.05)
    (tmp_path / "claim").write_bytes(content)
    waiting = Claims()
    with waiting.claimed(tmp_path / "claim") as at_once:
        pass
    time.sleep(0.06)
    with waiting.claimed(tmp_path / "claim") as later:
        pass

    assert (at_once, later) == (False, True)


def test_a_claim_of_a_process_whose_id_is_used_again_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    machine, pid, _ = Process.current().name.split("-")
    path.write_text(f"{machine}-{pid}-1")

    with Claims().claimed(path) as taken:
        assert taken


def test_a_folder_in_place_of_a_claim_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "claim").mkdir()

    with (
        pytest.raises(OutputError, match="claim: is a folder"),
        Claims().claimed(tmp_path / "claim"),
    ):
        pass


def test_a_silent_claim_of_another_machine_is_taken_over_after_a_lease(tmp_path: Path) -> None:
    """Its time of change may be far in the future or past: machines' clocks differ."""
    path = held_elsewhere(tmp_path / "claim", "another machine", 1)
    observer = Claims(lease_seconds=0.2)
    with observer.claimed(path) as at_once:
        pass
    time.sleep(0.3)
    with observer.claimed(path) as later:
        pass

    assert (at_once, later) == (False, True)


def test_a_claim_whose_holder_shows_signs_of_life_stays_its_own(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    holder, other = Claims(lease_seconds=0.3), Claims(lease_seconds=0.3)
    with holder.claimed(path):
        found = []
        for _ in range(10):
            with other.claimed(path) as is_claimed:
                found.append(is_claimed)
            time.sleep(0.1)

        assert not any(found)


def test_nothing_can_be_claimed_in_a_removed_folder(tmp_path: Path) -> None:
    """The shard was joined meanwhile."""
    with Claims().claimed(tmp_path / "gone" / "claim") as is_claimed:
        assert not is_claimed
