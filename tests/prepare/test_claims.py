import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from blendtitan.prepare.claims import Claims


def held_elsewhere(path: Path, host: str, pid: int) -> Path:
    path.write_text(json.dumps({"host": host, "pid": pid}))
    return path


def ended_pid() -> int:
    """The id of a process that was, and that nobody has waited for yet."""
    return subprocess.Popen([sys.executable, "-c", ""]).pid


def test_only_one_has_a_claim_until_it_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    with Claims().claimed(path) as first, Claims().claimed(path) as second:
        assert (first, second) == (True, False)
    with Claims().claimed(path) as third:
        assert third
    assert not path.exists()


def test_a_claim_is_given_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Claims().claimed(tmp_path / "claim"):
        _ = 1 / 0

    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_claim_of_a_process_that_has_ended_is_taken_over_at_once(tmp_path: Path) -> None:
    """Also where nobody waits for killed processes, as in many containers."""
    path = held_elsewhere(tmp_path / "claim", socket.gethostname(), ended_pid())
    deadline = time.monotonic() + 10
    taken = False
    while not taken and time.monotonic() < deadline:
        with Claims().claimed(path) as taken:
            pass

    assert taken


def test_a_silent_claim_of_another_machine_is_taken_over_after_a_lease(tmp_path: Path) -> None:
    """Its time of change may be far in the future or past: machines' clocks differ."""
    path = held_elsewhere(tmp_path / "claim", "another machine", 1)
    claims = Claims(lease_seconds=0.2)
    with claims.claimed(path) as at_once:
        pass
    time.sleep(0.3)
    with claims.claimed(path) as later:
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


def test_in_a_folder_that_is_gone_there_is_no_claim(tmp_path: Path) -> None:
    """The shard was joined meanwhile."""
    with Claims().claimed(tmp_path / "gone" / "claim") as is_claimed:
        assert not is_claimed
