"""The HTML file: complete, self-contained, and safe with any text."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from blendtitan.cli import main
from blendtitan.runs.report.page import Page, page_html, write_page
from tests.runs.conftest import WriteRun
from tests.runs.report.conftest import CORPORA, TrainedRun

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


def page_of(text: str) -> Page:
    return Page(title="title", lead=text)


def without_scripts(html: str) -> str:
    return re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)


def test_the_command_reports_the_written_file(
    trained_run: TrainedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.html"

    assert main(["report", str(trained_run("run")), "--output", str(output)]) == 0
    assert capsys.readouterr().out == f"{output}: {output.stat().st_size:,} bytes, 1 run\n"
    assert "web" in output.read_text()


def test_a_configuration_alone_is_reported_without_losses(
    write_run: WriteRun, tmp_path: Path
) -> None:
    output = tmp_path / "out.html"

    assert main(["report", str(write_run(CORPORA)), "--output", str(output)]) == 0
    html = without_scripts(output.read_text())
    assert "run: no losses, because no TensorBoard file" in html
    assert "run: no waiting times, because no TensorBoard file" in html
    assert "0 of 10" in html


def test_compared_runs_show_the_keys_that_differ(trained_run: TrainedRun, tmp_path: Path) -> None:
    a, b, output = trained_run("a"), trained_run("b"), tmp_path / "out.html"
    config = (b / "config.toml").read_text()
    (b / "config.toml").write_text(config.replace("steps = 40", "steps = 50"))

    assert main(["report", str(a), "--compare", str(b), "--output", str(output)]) == 0
    html = without_scripts(output.read_text())
    differing = html[html.index("Keys that differ") :]
    differing = differing[: differing.index("</table>")]
    assert re.findall(r'<th scope="row">(.*?)</th>(.*?)</tr>', differing) == [
        ("training.steps", "<td>40</td><td>50</td>")
    ]


def test_documents_that_runs_share_are_shown_once(trained_run: TrainedRun, tmp_path: Path) -> None:
    a, b, output = trained_run("a"), trained_run("b"), tmp_path / "out.html"

    assert main(["report", str(a), "--compare", str(b), "--output", str(output)]) == 0
    html = without_scripts(output.read_text())
    assert "b: the same documents as a." in html
    assert html.count('aria-label="a: Documents of each corpus by length') == 1


def test_a_plan_has_the_same_picture(
    write_run: WriteRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "blend.html"

    assert main(["plan", str(write_run(CORPORA)), "--picture", str(output)]) == 0
    html = without_scripts(output.read_text())
    assert html.count('class="plot"') == 1
    assert "10 steps of 8 samples" in html
    assert "corpus" in capsys.readouterr().out


def test_everything_is_escaped() -> None:
    html = page_html(page_of(HOSTILE))

    assert html.count("<script") == 3  # values, plotly.js, the page's own
    assert "<img" not in without_scripts(html)
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in html


def test_an_incomplete_page_is_never_visible(tmp_path: Path) -> None:
    """The old file stays until the new one is complete, and no other file is left."""
    path = tmp_path / "page.html"
    write_page(page_of("one"), path)
    write_page(page_of("two"), path)

    assert "two" in path.read_text()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("words", [["report", "--output"], ["plan", "--picture"]])
def test_a_file_that_is_not_a_page_is_replaced_only_with_overwrite(
    write_run: WriteRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    path, (command, option) = tmp_path / "page.html", words
    arguments = [command, str(write_run(CORPORA)), option, str(path)]
    path.write_text("<html>mine</html>")

    assert main(arguments) == 1
    assert "page.html: exists already, and was not written by this" in capsys.readouterr().err
    assert path.read_text() == "<html>mine</html>"
    assert main([*arguments, "--overwrite"]) == 0
    assert main(arguments) == 0


def test_its_folder_is_created_or_the_file_in_its_place_is_named(tmp_path: Path) -> None:
    write_page(page_of("one"), tmp_path / "new/page.html")

    assert "one" in (tmp_path / "new/page.html").read_text()
    with pytest.raises(OSError, match=r"page\.html"):
        write_page(page_of("one"), tmp_path / "new/page.html/x")


def test_neither_torch_nor_torchtitan_is_imported(write_run: WriteRun, tmp_path: Path) -> None:
    arguments = ["report", str(write_run(CORPORA)), "--output", str(tmp_path / "out.html")]
    code = (
        "import sys; from blendtitan.cli import main; main(sys.argv[1:]); "
        "assert not {'torch', 'torchtitan'} & set(sys.modules)"
    )

    subprocess.run([sys.executable, "-c", code, *arguments], check=True)
