"""Folders of shards: what lies below them, and which corpus it belongs to."""

import os
from pathlib import Path

from blendtitan.errors import FileListError


def find_shards(folder: Path) -> list[Path]:
    """Prefixes of all ``.bin`` and ``.idx`` files below ``folder``, sorted by path.

    Symbolic links are followed. A file without its other half is found as well, so that it is
    missed when the shard is opened.

    Raises:
        FileListError: A folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise FileListError(f"{error.filename}: cannot be searched ({error.strerror})") from error

    found: set[Path] = set()
    real = [os.path.realpath(folder)]  # of each folder from the first down to the present one
    depth_of_first = len(folder.parts)
    for root, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        depth = len(Path(root).parts) - depth_of_first
        if depth:
            above, name = real[depth - 1], os.path.basename(root)
            real[depth:] = [
                os.path.realpath(root) if os.path.islink(root) else os.path.join(above, name)
            ]
        # A link to a folder above would be walked for ever.
        if any(os.path.commonpath([real[depth], above]) == real[depth] for above in real[:depth]):
            folders.clear()
            continue
        names = [name for name in files if name.endswith((".idx", ".bin"))]
        found.update(Path(root, _checked_name(name, root)[:-4]) for name in names)
    return sorted(found)


def _checked_name(name: str, folder: str) -> str:
    try:
        os.path.join(folder, name).encode()
    except UnicodeEncodeError:
        raise FileListError(
            f"{folder!a}: the name {name!a} is not UTF-8. Rename what is not, so that it can be "
            f"logged and kept."
        ) from None
    return name


def corpus_in_folder(prefix: Path, folder: Path) -> str:
    """Corpus of a shard found in ``folder``: its first-level subfolder, else the folder itself."""
    parts = prefix.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else folder.resolve().name
