"""Names of the Hugging Face Hub, found in the local cache; the network is never asked."""

import os
import re
from pathlib import Path

from blendtitan.errors import ConfigError

_HUB_NAME = re.compile(r"([\w.-]+)/([\w.-]+?)(?:@([\w./-]+))?")


def located(path: str | Path) -> Path:
    """The path itself where it exists, else the newest copy of the repository that it names.

    Raises:
        ConfigError: It has the form of such a name, and is neither.
    """
    name = _HUB_NAME.fullmatch(str(path))
    if name is None or os.path.lexists(path) or name[1] in (".", ".."):
        return Path(path)
    owner, repository, revision = name.groups()
    folder = _cache() / f"models--{owner}--{repository}"
    found = _snapshot(folder, revision or "main")
    # A path that is wrong, such as data/tokenizer.json, has the form of a name as well.
    if found is None and Path(path).suffix in (".json", ".model"):
        return Path(path)
    if found is None:
        raise ConfigError(
            f"{path}: there is no such file or folder, nor a repository of that name in the local "
            f"Hugging Face cache ({folder}). Download it with `hf download {owner}/{repository} "
            f"--include 'tokenizer*' 'special_tokens_map.json'`, or name a local path."
        )
    return found


def _cache() -> Path:
    """Folder of the cache, as huggingface_hub finds it."""
    variables = os.environ
    home = Path(variables.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    hub = variables.get("HF_HUB_CACHE") or Path(variables.get("HF_HOME") or home, "hub")
    return Path(hub).expanduser()


def _snapshot(folder: Path, revision: str) -> Path | None:
    """The snapshot that a branch, tag or commit names."""
    try:
        commit = (folder / "refs" / revision).read_text().strip()
    except OSError:
        commit = revision
    found = folder / "snapshots" / commit
    return found if found.is_dir() else None
