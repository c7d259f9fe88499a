"""Only regular files are read: what has a name but no end, or no beginning, is refused at once."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from blendtitan.cli import main
from blendtitan.errors import BlendTitanError
from blendtitan.files import open_file, read_file, read_text
from blendtitan.runs.checkpoints import latest_state
from blendtitan.runs.scalars import read_scalars
from blendtitan.settings.toml import read_toml
from blendtitan.shards.verify import Expected, verify
from blendtitan.storage.file_list import read_file_list
from blendtitan.storage.reader import ShardIndex
from blendtitan.storage.records import CATALOG_FILE, read_folder_catalog
from blendtitan.tokenizers import load_tokenizer
from tests.conftest import WriteShard


def make_socket(path: Path) -> None:
    """Leave a socket, as a server that was killed does."""
    here = os.getcwd()
    os.chdir(path.parent)  # the length of a socket's path is limited
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "a named pipe, expected a regular file"),
    "socket": (make_socket, "a socket or a device, expected a regular file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a device, expected a regular file"),
    "folder": (Path.mkdir, "a folder, expected a regular file"),
    "proc": (
        lambda path: path.symlink_to("/proc/self/maps"),
        "a file of size 0 with content",
    ),
}
EACH_KIND = pytest.mark.parametrize("kind", ODD)


@EACH_KIND
def test_other_than_regular_files_are_refused_and_never_waited_for(
    tmp_path: Path, kind: str
) -> None:
    make, message = ODD[kind]
    make(tmp_path / "odd")

    with pytest.raises(OSError, match=message):
        read_file(tmp_path / "odd")


def test_a_link_to_a_regular_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("\u00e9\r\nb")
    (tmp_path / "link").symlink_to("file")

    assert read_text(tmp_path / "link") == "\u00e9\nb"
    with open_file(tmp_path / "link") as file:
        assert file.read() == "\u00e9\r\nb".encode()


def test_a_file_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    """As large as it says it is: its terabyte is a hole, which takes no room on the disk."""
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)

    with pytest.raises(OSError, match=r"found 1,099,511,627,776 bytes, expected at most"):
        read_file(tmp_path / "sparse")


ROLES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a file list": ("list", read_file_list),
    "a configuration": ("run.toml", read_toml),
    "a folder's catalog": (CATALOG_FILE, lambda path: read_folder_catalog(path.parent)),
    "a tokenizer": ("tokenizer.json", load_tokenizer),
    "a SentencePiece model": ("tokenizer.model", load_tokenizer),
    "a checkpoint": ("step-1/.metadata", lambda path: latest_state(path.parent)),
    "an .idx": ("web.idx", lambda path: ShardIndex.open(path.with_name("web"))),
    "a .bin": ("web.bin", lambda path: ShardIndex.open(path.with_name("web"))),
    "a TensorBoard file": ("events.out.tfevents.1", lambda path: read_scalars(path.parent)),
}


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
@pytest.mark.parametrize("role", ROLES)
def test_whatever_role_it_has_an_odd_file_is_an_error_of_ours(
    write_shard: WriteShard, tmp_path: Path, role: str, kind: str
) -> None:
    name, read = ROLES[role]
    write_shard("web", [[5, 6, 2]])
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    ODD[kind][0](path)

    with pytest.raises(BlendTitanError, match=path.name.replace(".", r"\.")):
        read(path)


def test_a_bin_that_became_a_pipe_is_a_problem_of_its_shard(
    write_shard: WriteShard, tmp_path: Path
) -> None:
    """Found among good shards, it keeps none of them from being verified."""
    write_shard("a", [[5, 2]])
    write_shard("b", [[5, 2]])
    (tmp_path / "a.bin").unlink()
    os.mkfifo(tmp_path / "a.bin")
    a, b = verify([tmp_path / "a", tmp_path / "b"], Expected())

    assert "a.bin has 0 bytes" in a.problems[0]
    assert b.problems == []


def test_a_command_says_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats", "/dev/zero"]) == 1
    assert "it is a device, expected a regular file" in capsys.readouterr().err
