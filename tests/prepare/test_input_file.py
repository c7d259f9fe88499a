"""Inputs by URL, from a web server in the tests; and the identity of inputs."""

import gzip
import os
import threading
from collections.abc import Generator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blendtitan.errors import InputError
from blendtitan.prepare.input_file import InputFile
from blendtitan.prepare.inputs import find_inputs
from blendtitan.prepare.tokenize import TokenizeConfig, tokenize
from tests.prepare.conftest import documents, expected, shard_files

TEXTS = [f"text number {n} " * 20 for n in range(200)]


class RangeHandler(SimpleHTTPRequestHandler):
    """Also answers requests for a part of a file, as stores do."""

    def do_GET(self) -> None:
        """Send a file, a part of it, or the listing of a folder."""
        path = Path(self.translate_path(self.path))
        asked = self.headers.get("Range")
        if asked is None or not path.is_file():
            super().do_GET()
            return
        start, _, last = asked.removeprefix("bytes=").partition("-")
        content = path.read_bytes()[int(start) : int(last) + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(content)))
        end = int(start) + len(content) - 1
        self.send_header("Content-Range", f"bytes {start}-{end}/{path.stat().st_size}")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of every kind, as stored."""
    lines = b"".join(b'{"text": "%s"}\n' % text.encode() for text in TEXTS)
    for name, content in (
        ("code/plain.jsonl", lines),
        ("code/one.jsonl.gz", gzip.compress(lines)),
        ("web/readme.md", b"no input"),
    ):
        path = tmp_path / "served" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    table = pa.table({"text": TEXTS})
    pq.write_table(table, tmp_path / "served/web/rows.parquet", row_group_size=50)
    return tmp_path / "served"


@pytest.fixture
def url(folder: Path) -> Generator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(RangeHandler, directory=str(folder)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def names(location: str | Path) -> list[str]:
    return [str(relative) for _, relative in find_inputs(location)]


@pytest.mark.filterwarnings("ignore")  # fsspec's own loop is never closed
def test_files_behind_urls_become_the_same_shards(
    folder: Path, url: str, tokenizer_path: Path, tmp_path: Path
) -> None:
    """Plain files in several ranges, compressed ones as a stream, Parquet by row groups."""
    config = TokenizeConfig(tokenizer=tokenizer_path, job_bytes=9000)
    remote = [f"{url}/code/plain.jsonl", f"{url}/code/one.jsonl.gz", f"{url}/web/rows.parquet"]
    local = [folder / "code/plain.jsonl", folder / "code/one.jsonl.gz", folder / "web/rows.parquet"]

    tokenize(remote, tmp_path / "remote", config)
    tokenize(local, tmp_path / "local", config)

    assert documents(tmp_path / "remote/plain") == expected(tokenizer_path, TEXTS)
    there, here = shard_files(tmp_path / "remote"), shard_files(tmp_path / "local")
    for name in here:  # the sources of documents name the inputs
        assert name.endswith(".docs.parquet") or there[name] == here[name]
    assert there.keys() == here.keys()
    record = (tmp_path / "remote/.blendtitan/plain.jsonl").read_text()
    assert f'"{url}/code/plain.jsonl"' in record.splitlines()[0]
    assert record.count("\n") > 5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("", ["code/one.jsonl.gz", "code/plain.jsonl", "web/rows.parquet"]),
        ("/web", ["rows.parquet"]),
        ("/*/*.jsonl*", ["code/one.jsonl.gz", "code/plain.jsonl"]),
        ("/code/plain.jsonl?signature=abc.def", ["plain.jsonl"]),
    ],
    ids=["folder", "folder below", "pattern", "file with a query"],
)
def test_folders_and_patterns_of_urls_are_searched(
    folder: Path, url: str, asked: str, found: list[str]
) -> None:
    """Like local folders and patterns."""
    assert names(f"{url}{asked}") == found
    if "?" not in asked:
        assert names(f"{folder}{asked}") == found


def test_a_file_system_of_fsspec_is_read_by_its_name(folder: Path, tmp_path: Path) -> None:
    assert names(f"file://{folder}/code") == ["one.jsonl.gz", "plain.jsonl"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("{url}/code/missing.jsonl", r"missing\.jsonl: cannot be read \(status 404 Not Found\)"),
        ("{url}/web/readme.md", r"readme\.md: expected a folder, or a file named"),
        ("{url}/nothing/*.jsonl", "matches no file named"),
        ("unknown://host/a.jsonl", "unknown://host/a.jsonl: cannot be read: Protocol not known"),
        ("abfs://a/b.jsonl", r"abfs://a/b\.jsonl: cannot be read: .*adlfs"),
        ("http://127.0.0.1:9/a.jsonl", r":9/a\.jsonl: cannot be read \(Connection refused\)"),
        ("http://host.invalid/a.jsonl", r"cannot be read \(.*(not known|resolution)"),
        ("memory://a/b.jsonl", r"cannot be read \(there is no such file\)"),
    ],
)
def test_a_url_that_cannot_be_read_is_an_error_that_names_it(
    url: str, asked: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        names(asked.format(url=url))


@pytest.mark.filterwarnings("ignore")
def test_an_input_that_changed_is_noticed(folder: Path, url: str) -> None:
    """Even if its size stays the same, and if the store caches its listing."""
    path = folder / "code/plain.jsonl"
    files = [InputFile.of(path), InputFile.of(f"{url}/code/plain.jsonl")]
    for file in files:
        file.check_unchanged()
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**10))

    for file in files:
        with pytest.raises(InputError, match=r"plain\.jsonl: changed while it was read"):
            file.check_unchanged()


@pytest.mark.filterwarnings("ignore")
def test_a_server_that_sends_no_parts_is_an_error(
    folder: Path, tokenizer_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """Otherwise a large file would be sent from its beginning for every part."""
    monkeypatch.setattr(RangeHandler, "do_GET", SimpleHTTPRequestHandler.do_GET)
    config = TokenizeConfig(tokenizer=tokenizer_path, job_bytes=9000)

    with pytest.raises(InputError, match=r"plain\.jsonl: cannot be read"):
        tokenize([f"{url}/code/plain.jsonl"], tmp_path / "out", config)
    assert shard_files(tmp_path / "out") == {}
