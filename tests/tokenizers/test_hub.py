from pathlib import Path

import pytest

from blendtitan.errors import ConfigError
from blendtitan.tokenizers import located


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository in the cache, as ``hf download`` leaves it."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--org--name"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("abc123")
    (folder / "snapshots/abc123").mkdir(parents=True)
    return folder / "snapshots/abc123"


@pytest.mark.parametrize("name", ["org/name", "org/name@main", "org/name@abc123"])
def test_a_name_of_the_hub_is_found_in_the_local_cache(snapshot: Path, name: str) -> None:
    assert located(name) == snapshot


def test_a_path_that_exists_comes_first(
    snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org/name").mkdir(parents=True)

    assert located("org/name") == Path("org/name")


def test_a_name_outside_the_cache_is_an_error_with_the_download_command(
    snapshot: Path,
) -> None:
    with pytest.raises(ConfigError, match=r"models--org--other.*hf download org/other"):
        located("org/other")
