"""Everything in a folder is read, or reported as skipped."""

import json
import os
import socket
from pathlib import Path

import pytest

from blendtitan.errors import InputError
from blendtitan.prepare import inputs
from blendtitan.prepare.inputs import find_inputs


def made(path: Path, content: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def names(location: str | Path, *, skip_unknown: bool = False) -> list[str]:
    return [str(below) for _, below in find_inputs(location, skip_unknown=skip_unknown)]


def test_every_usual_format_is_an_input_in_upper_and_lower_case(tmp_path: Path) -> None:
    """Each of these suffixes used to be skipped silently."""
    found = ["E.JSONL", "a.jsonl.zstd", "b.jsonl.xz", "c.bz2", "d.ndjson", "f.txt", "g.arrow"]
    found += ["h.feather", "i.csv", "j.tsv.gz", "k.txt.zst"]
    for name in found:
        made(tmp_path / name)

    assert names(tmp_path) == found


@pytest.mark.parametrize("asked", ["", "/*", "/**"])
def test_links_are_followed_and_those_to_a_folder_above_are_not(
    tmp_path: Path, asked: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A corpus may be on another disk."""
    made(tmp_path / "elsewhere/a.jsonl")
    made(tmp_path / "text/web/b.jsonl")
    (tmp_path / "text/books").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "text/web/loop").symlink_to(tmp_path / "text")
    caplog.set_level("INFO")

    found = names(f"{tmp_path}/text{asked}" if asked != "/**" else tmp_path / "text")

    assert found == ["books/a.jsonl", "web/b.jsonl"]
    assert "skipped, not taken for data: web/loop" in caplog.text


def test_hidden_files_and_companions_are_skipped_with_a_log_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Notebooks keep copies of files in hidden folders."""
    made(tmp_path / "a.jsonl")
    for name in (".ipynb_checkpoints/a.jsonl", ".gitattributes", "web/.b.jsonl"):
        made(tmp_path / name)
    for name in ("README.txt", "LICENSE", "a.jsonl.md5", "SHA256SUMS", "web/_SUCCESS"):
        made(tmp_path / name)
    caplog.set_level("INFO")

    assert names(tmp_path) == ["a.jsonl"]
    assert "LICENSE, README.txt, SHA256SUMS, a.jsonl.md5, web/_SUCCESS" in caplog.text
    assert "3 hidden files or folders skipped" in caplog.text


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    # Paths of sockets are short.
    here = Path.cwd()
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(path.name)
    os.chdir(here)


PROBLEMS = {
    "model.safetensors": (Path.touch, "has an unknown format"),
    "archive.tar.gz": (Path.touch, "has an unknown format"),
    "lonely.bin": (Path.touch, "has an unknown format"),
    "dangling.jsonl": (
        lambda path: path.symlink_to("/no/such/blob"),
        "cannot be read (No such file or directory; it is a link to /no/such/blob)",
    ),
    "fifo.jsonl": (make_fifo, "is a FIFO, expected a regular file"),
    "socket.jsonl": (make_socket, "is a socket, expected a regular file"),
    "device.jsonl": (lambda path: path.symlink_to("/dev/zero"), "is a device, expected"),
    "kernel.txt": (lambda path: path.symlink_to("/proc/self/environ"), "is a file of the kernel"),
}


def test_unreadable_files_are_one_error_that_names_all_of_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With ``skip_unknown`` it is a warning for each."""
    made(tmp_path / "a.jsonl")
    for name, (make, _) in PROBLEMS.items():
        make(tmp_path / name)

    with pytest.raises(InputError) as caught:
        names(tmp_path)
    assert names(tmp_path, skip_unknown=True) == ["a.jsonl"]

    for name, (_, reason) in PROBLEMS.items():
        assert f"{tmp_path}/{name}: {reason}" in str(caught.value)
        assert f"skipped: {tmp_path}/{name}: {reason}" in caplog.text
    assert "8 files or folders cannot be read as text" in str(caught.value)


@pytest.mark.parametrize("name", ["fifo.jsonl", "device.jsonl", "kernel.txt"])
def test_a_file_named_by_itself_is_a_regular_file(tmp_path: Path, name: str) -> None:
    """Opening a FIFO would block, and reading /dev/zero would never end."""
    make, reason = PROBLEMS[name]
    make(tmp_path / name)

    with pytest.raises(InputError, match=reason):
        names(tmp_path / name)


def test_a_folder_that_may_not_be_searched_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path / "a.jsonl")
    (tmp_path / "closed").mkdir()
    listed = os.listdir

    def refuse(path: str) -> list[str]:
        if path.endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(inputs.os, "listdir", refuse)

    with pytest.raises(InputError, match=r"closed: cannot be searched \(Permission denied\)"):
        names(tmp_path)


def test_a_file_that_is_found_twice_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Training would read its documents twice as often as others."""
    made(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").symlink_to("a.jsonl")

    assert names(tmp_path) == ["a.jsonl", "b.jsonl"]
    assert "a.jsonl and " in caplog.text
    assert "b.jsonl are the same file: it is read twice" in caplog.text


def test_the_files_beside_shards_are_not_inputs(tmp_path: Path) -> None:
    """The output may be in the folder of the inputs when the command is run again."""
    for name in ("a.jsonl", "a.bin", "a.idx", "a.rejects.jsonl", "a.tokenizer.json", "a.ends.json"):
        made(tmp_path / name)
    for name in ("shards.catalog", "b.bin.partial-1", ".blendtitan/a.jsonl"):
        made(tmp_path / name)

    assert names(tmp_path) == ["a.jsonl"]


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_saved_dataset_gives_the_files_that_it_lists(tmp_path: Path, scheme: str) -> None:
    """``datasets`` leaves caches of other versions of the same rows beside them."""
    part = "data-00000-of-00001.arrow"
    made(tmp_path / "dataset_dict.json", '{"splits": ["train"]}')
    made(tmp_path / "train/state.json", json.dumps({"_data_files": [{"filename": part}]}))
    made(tmp_path / "train/dataset_info.json", "{}")
    made(tmp_path / "train/cache-0123.arrow")
    made(tmp_path / f"train/{part}")

    assert names(f"{scheme}{tmp_path}") == [f"train/{part}"]
    (tmp_path / f"train/{part}").unlink()
    with pytest.raises(InputError, match=r"data-00000-of-00001\.arrow: is missing"):
        names(f"{scheme}{tmp_path}")


@pytest.mark.parametrize("scheme", ["", "file://"])
@pytest.mark.parametrize(
    "state",
    ["", "[]", "null", '{"_data_files": 3}', '{"_data_files": [3]}', '{"_data_files": [{}]}'],
)
def test_a_damaged_state_of_a_saved_dataset_is_an_error(
    tmp_path: Path, state: str, scheme: str
) -> None:
    """The caches beside it used to be read as text, too."""
    made(tmp_path / "train/state.json", state)
    made(tmp_path / "train/cache-0123.arrow")
    made(tmp_path / "train/data-00000-of-00001.arrow")
    made(tmp_path / "other.jsonl")

    with pytest.raises(InputError, match=r"train/state\.json: is damaged, expected the state"):
        names(f"{scheme}{tmp_path}")
    assert names(f"{scheme}{tmp_path}", skip_unknown=True) == ["other.jsonl"]


@pytest.mark.parametrize("state", ["[]", "{}"])
def test_the_state_of_another_program_is_left_alone(tmp_path: Path, state: str) -> None:
    made(tmp_path / "state.json", state)
    made(tmp_path / "a.jsonl")
    made(tmp_path / "below/a.arrow")

    assert names(tmp_path) == ["a.jsonl", "below/a.arrow"]


def test_a_saved_dataset_does_not_list_files_of_other_folders(tmp_path: Path) -> None:
    made(tmp_path / "a/data.arrow")
    made(tmp_path / "b/state.json", json.dumps({"_data_files": [{"filename": "../a/data.arrow"}]}))

    with pytest.raises(InputError, match=r"lists '\.\./a/data\.arrow', which is outside"):
        names(tmp_path)


def test_hidden_and_unknown_files_behind_urls_are_left_out_or_errors_too(tmp_path: Path) -> None:
    made(tmp_path / "web/a.jsonl")
    made(tmp_path / "web/.hidden/b.jsonl")
    made(tmp_path / "web/README.md")

    assert names(f"file://{tmp_path}") == ["web/a.jsonl"]
    made(tmp_path / "web/model.safetensors")
    with pytest.raises(InputError, match=r"model\.safetensors: has an unknown format"):
        names(f"file://{tmp_path}")


def test_an_empty_name_is_not_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path / "a.jsonl")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(InputError, match="an input is an empty name, expected"):
        names("")


def test_a_path_that_is_not_utf8_is_an_error_that_names_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.jsonl", "b\udcff.jsonl", "c\udcff/d.jsonl"):
        made(tmp_path / name)

    with pytest.raises(InputError) as caught:
        names(tmp_path)

    *lines, _ = str(caught.value).splitlines()
    reason = "has a path that is not UTF-8: rename the file or folder"
    assert lines == [
        rf"{tmp_path}/b\udcff.jsonl: {reason}",
        rf"{tmp_path}/c\udcff/d.jsonl: {reason}",
    ]
    assert names(tmp_path, skip_unknown=True) == ["a.jsonl"]
    assert rf"b\udcff.jsonl: {reason}" in caplog.text
