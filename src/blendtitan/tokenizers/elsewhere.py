"""Tokenizers that are not at a local path: in the Hugging Face cache, or at a URL."""

import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from blendtitan.errors import ConfigError
from blendtitan.files import path_of, read_file, read_text, url_of
from blendtitan.tokenizers.router import FILES

_HUB_NAME = re.compile(r"([\w.-]+)/([\w.-]+?)(?:@([\w./-]+))?")

_BESIDE = ("tokenizer_config.json", "special_tokens_map.json")
"""Files that name the special tokens of one."""

_MOST_BYTES = 1 << 30
_DIGEST_CHARS = 16


def fetched(path: str | Path) -> Path:
    """The local path of a tokenizer at a URL, or of a repository in the Hugging Face cache.

    The content of a URL is downloaded once. Nothing is downloaded for a repository. Any other path
    is returned as it is.

    Raises:
        ConfigError: A URL cannot be read, or a path looks like a repository's name, and there is
            none.
    """
    if url := url_of(path):
        return _downloaded(url)
    name = _HUB_NAME.fullmatch(str(path))
    if name is None or name[1] in (".", ".."):
        return Path(path)
    owner, repository, revision = name.groups()
    # The folder of the cache, as huggingface_hub finds it.
    home = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    hub = os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or home, "hub")
    folder = Path(hub).expanduser() / f"models--{owner}--{repository}"
    commit = revision or "main"
    with suppress(OSError):  # It is a commit already, or missing.
        commit = read_text(folder / "refs" / commit).strip()
    found = folder / "snapshots" / commit
    if found.is_dir():
        return found
    # A wrong path, such as data/tokenizer.json, also has the form of a name.
    if Path(path).suffix in (".json", ".model") or Path(owner).is_dir():
        return Path(path)
    raise ConfigError(
        f"{path}: no such file or folder, and no repository of that name in the local "
        f"Hugging Face cache ({folder}). Download it with `hf download {owner}/{repository} "
        f"--include 'tokenizer*' 'tekken.json' 'special_tokens_map.json'`, or name a local "
        f"path."
    )


def cache_folder() -> Path:
    """The folder for what may be made or downloaded again, below ``XDG_CACHE_HOME``."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base, "blendtitan")


def _downloaded(url: str) -> Path:
    """A local copy of a tokenizer's files, in a folder named after their versions."""
    folder, _, name = url.rpartition("/") if _is_file(url) else (url, "", "")
    holders = [name] if name else FILES
    try:
        found = _versions(folder, [*holders, *_BESIDE])
        if not any(holder in found for holder in holders):
            raise FileNotFoundError(errno.ENOENT, f"there is no {' or '.join(holders)}")
        digest = hashlib.sha256(repr((url, found)).encode()).hexdigest()[:_DIGEST_CHARS]
        # The name of the folder is part of what shards record about their tokenizer.
        copy = cache_folder() / "tokenizers" / digest / Path(folder).name
        if not copy.is_dir():
            each = {part: read_file(f"{folder}/{part}", most_bytes=_MOST_BYTES) for part in found}
            _write_folder(copy, each)
    except OSError as error:
        raise ConfigError(
            f"{url}: cannot be read ({error.strerror}). Name the file of a tokenizer, or a folder "
            f"with one of {', '.join(FILES)}."
        ) from error
    return copy / name


def _is_file(url: str) -> bool:
    """Whether a URL names a file, not a folder. A web server cannot tell, so the name must."""
    if url.endswith((".json", ".model")):
        return True
    with suppress(OSError):  # whoever reads the file reports that
        return not url.startswith("http") and path_of(url).exists()
    return False


def _versions(folder: str, names: Sequence[str]) -> dict[str, str]:
    """The versions of those files that exist.

    Raises:
        PermissionError: None of them can be read.
    """
    from blendtitan.remote import head

    found: dict[str, str] = {}
    refused: PermissionError | None = None
    for name in names:
        try:
            found[name] = head(f"{folder}/{name}").version
        except FileNotFoundError:
            pass
        except PermissionError as error:  # S3's answer for a missing file, if one may not list
            refused = error
    if refused is not None and not found:
        raise refused
    return found


def _write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files to a folder, which appears when all of them are complete."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=folder.parent))
        try:
            for name, content in files.items():
                (partial / name).write_bytes(content)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        if not folder.is_dir():  # another process was faster
            raise ConfigError(
                f"{folder}: the tokenizer cannot be kept there ({error.strerror}). Set "
                f"XDG_CACHE_HOME to a folder that can be written."
            ) from error
