"""What would be uploaded: complete distributions, and a page on PyPI without a broken link."""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REPOSITORY = PROJECT["urls"]["Repository"]
LINK = re.compile(r"(!?)\[[^\]]*\]\(([^)\s]+)\)")
ON_GITHUB = re.compile(rf"{re.escape(REPOSITORY)}/(blob|raw)/v{PROJECT['version']}/([^#]+)(?:#.*)?")


def build(folder: Path, source: Path, *targets: str) -> None:
    """Build distributions of a source as ``python -m build`` does, in this environment."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--directory", folder, *targets],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel of the repository."""
    folder = tmp_path_factory.mktemp("distributions")
    build(folder, ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    (path,) = built.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def unpacked(built: Path) -> Path:
    """The sdist as a folder."""
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as sdist:
        sdist.extractall(built / "sdist", filter="data")
    (folder,) = (built / "sdist").iterdir()
    return folder


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    (path,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(path).decode())


def test_the_wheel_made_from_the_sdist_is_that_of_the_repository(
    built: Path, unpacked: Path, tmp_path: Path
) -> None:
    """A packager who starts from PyPI gets what the project has tested, byte for byte."""
    build(tmp_path, unpacked, "--target", "wheel")
    (rebuilt,) = tmp_path.iterdir()

    assert rebuilt.read_bytes() == (built / rebuilt.name).read_bytes()


def test_the_sdist_has_what_a_packager_needs(unpacked: Path) -> None:
    for name in ("src", "configs", "launch", "docs", "scripts", "benchmarks"):
        assert any((unpacked / name).iterdir()), name
    for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Dockerfile"):
        assert (unpacked / name).is_file(), name
    in_repository = {path.relative_to(ROOT) for path in ROOT.glob("tests/**/*.py")}
    assert in_repository == {path.relative_to(unpacked) for path in unpacked.glob("tests/**/*.py")}


def test_the_wheel_has_types_licence_configurations_and_scripts(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    files = {f"configs/{path.name}" for path in ROOT.glob("configs/*.toml")}
    files |= {f"launch/{path.name}" for path in ROOT.glob("launch/*.sh")}

    assert {f"blendtitan/{name}" for name in {"py.typed", *files}} <= names
    assert f"blendtitan-{PROJECT['version']}.dist-info/licenses/LICENSE" in names


def test_training_has_a_range_of_versions_and_pinned_sets(metadata: Message) -> None:
    """An image keeps its PyTorch with ``train``; a new environment gets versions that match."""
    required = {re.sub("'", '"', each) for each in metadata.get_all("Requires-Dist", [])}
    pages = [(ROOT / page).read_text() for page in ("README.md", "docs/torchtitan.md")]

    def of_extra(extra: str) -> set[str]:
        end = f'; extra == "{extra}"'
        return {each.removesuffix(end) for each in required if each.endswith(end)}

    assert {"torch>=2.9", "torchtitan<0.4,>=0.2"} <= of_extra("train")
    assert {"torch==2.11.0", "torchtitan==0.2.2"} | of_extra("train") == of_extra("titan02")
    assert {"torch==2.15.0", "torchtitan==0.3.0"} | of_extra("train") == of_extra("titan03")
    assert {"titan02", "titan03"} <= {*metadata.get_all("Provides-Extra", [])}
    assert all("titan02" in page and "titan03" in page for page in pages)
    assert "TorchTitan 0.2.2 and PyTorch 2.11.0" in pages[1]
    assert "TorchTitan 0.3.0 and PyTorch 2.15.0" in pages[1]


def test_the_metadata_states_licence_and_types_as_pypi_wants_them(metadata: Message) -> None:
    """An SPDX expression excludes a classifier of the licence (PEP 639)."""
    classifiers = metadata.get_all("Classifier", [])

    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert not [name for name in classifiers if name.startswith("License ::")]
    assert "Typing :: Typed" in classifiers


def test_the_newest_entry_of_the_changelog_is_the_version() -> None:
    """With its date; what follows it under "Unreleased" belongs to the next version."""
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    released = [heading for heading in headings if heading != "Unreleased"]

    assert re.fullmatch(rf"{re.escape(PROJECT['version'])} - \d{{4}}-\d\d-\d\d", released[0])


def test_every_link_on_pypi_is_absolute_and_leads_to_a_file(metadata: Message) -> None:
    """A picture must be a raw file, anything else the page that GitHub shows."""
    links = LINK.findall(str(metadata.get_payload()))
    relative = [
        link for _, link in LINK.findall((ROOT / "README.md").read_text()) if ":" not in link
    ]
    ours = [(mark, found) for mark, link in links if (found := ON_GITHUB.fullmatch(link))]

    assert len(relative) > 20
    assert len(ours) == len(relative)
    for _, link in links:
        assert link.startswith(("https://", "#")), link
    for mark, found in ours:
        assert found[1] == ("raw" if mark else "blob"), found[0]
        assert (ROOT / found[2]).is_file(), found[0]


def test_the_address_of_the_repository_is_written_once(unpacked: Path) -> None:
    """In ``pyproject.toml``, so that moving the project changes one line."""
    texts = [path for path in unpacked.rglob("*") if path.suffix in (".md", ".py", ".toml", ".svg")]
    counts = {str(path.relative_to(unpacked)): path.read_text().count(REPOSITORY) for path in texts}

    assert {name: count for name, count in counts.items() if count} == {"pyproject.toml": 1}


def test_pypi_would_accept_and_render_the_distributions(built: Path) -> None:
    pytest.importorskip("twine", reason="packagers test without it")
    files = [path for path in built.iterdir() if path.is_file()]
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *files],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2


def test_the_image_installs_the_wheel_with_extras_that_exist() -> None:
    (extras,) = re.findall(r"\$\{wheel\}\[(.+?)\]", (ROOT / "Dockerfile").read_text())

    assert {*extras.split(",")} <= PROJECT["optional-dependencies"].keys()
