"""The HTML file: complete, self-contained, and safe with any text."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from blendtitan.cli import main
from blendtitan.runs.open import read_run
from blendtitan.runs.report.facts import gather_run
from blendtitan.runs.report.page import (
    Page,
    amount,
    duration,
    page_html,
    report_page,
    summary,
    write_page,
)
from tests.runs.conftest import WriteRun
from tests.runs.report.conftest import CORPORA, TrainedRun
from tests.runs.test_explain import trained

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


def test_the_summary_names_model_speed_and_time(trained_run: TrainedRun) -> None:
    """Half of the run is trained, in steps of a minute."""
    facts = summary(gather_run(trained_run("run"), name="run"))

    assert facts["description"] == "a small run"
    assert facts["model"] == "llama3 debugmodel"
    assert facts["steps trained"] == "20 of 40"
    assert facts["samples"] == "80 of 160"
    assert facts["tokens"] == "640 of 1,280"
    assert facts["wall time"] == "10 min 0 s"
    assert facts["tokens per second, median"] == "32"
    assert facts["per device, median"] == "30"
    assert facts["MFU, median"] == "40%"
    assert facts["step time spent waiting for data"] == "25.00%"
    assert "starts" not in facts


def test_the_summary_leaves_out_unknown_facts(write_run: WriteRun) -> None:
    """A run that has not begun has none of speed, losses and time."""
    facts = summary(gather_run(write_run(CORPORA), name="run"))

    assert facts["steps trained"] == "0 of 10"
    assert facts["samples"] == "0 of 80"
    assert facts["tokens"] == "0 of 640"
    assert [*facts] == [
        *("steps trained", "samples", "tokens", "samples per step", "sequence length", "corpora")
    ]


@pytest.mark.parametrize(
    ("metric", "caption"),
    [
        ("mfu(%)", "Model FLOPS utilisation"),
        ("grad_norm", "Norm of the gradients"),
        ("lr/AdamW", "Learning rate of each step"),
        ("throughput(tps)", "Tokens per second of one device"),
        ("data/tokens_per_second", "Tokens of all devices"),
    ],
)
def test_a_panel_is_drawn_only_if_its_metric_was_logged(
    trained_run: TrainedRun, metric: str, caption: str
) -> None:
    """A run on a quantised model, for one, has no MFU."""
    run = gather_run(trained_run("run"), name="run")
    without = {name: values for name, values in run.metrics.items() if name != metric}
    html = page_html(report_page([run]))
    fewer = page_html(report_page([dataclasses.replace(run, metrics=without)]))

    assert caption in html
    assert caption not in fewer
    assert fewer.count('class="plot"') == html.count('class="plot"') - 1


def test_captions_name_dotted_lines_only_where_they_are_drawn(trained_run: TrainedRun) -> None:
    """The blend changed after step 10; before that step, no loss figure has the line."""
    run = gather_run(trained_run("run"), name="run")
    early = {
        name: dataclasses.replace(each, steps=each.steps[:5], values=each.values[:5])
        for name, each in run.metrics.items()
    }

    assert page_html(report_page([run])).count("Dotted lines mark changes of the blend.") == 3 * 2
    assert "Dotted" not in page_html(report_page([dataclasses.replace(run, metrics=early)]))


@pytest.mark.parametrize(
    ("number", "shown"),
    [(81_920, "81,920"), (2_500_000, "2,500,000"), (1.5e9, "1.5 B"), (1.2e13, "12 T")],
)
def test_a_large_amount_is_short(number: float, shown: str) -> None:
    assert amount(number) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (42, "42 s"),
        (59.7, "1 min 0 s"),
        (330, "5 min 30 s"),
        (3599.9, "1 h 0 min"),
        (86_400, "24 h 0 min"),
        (86_400 * 9 + 7200, "9 d 2 h"),
    ],
)
def test_a_time_has_its_two_largest_units(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_a_configuration_alone_is_reported_without_losses(
    write_run: WriteRun, tmp_path: Path
) -> None:
    output = tmp_path / "out.html"

    assert main(["report", str(write_run(CORPORA)), "--output", str(output)]) == 0
    html = without_scripts(output.read_text())
    assert "run: no losses, learning rate or speed, because no TensorBoard file" in html
    assert "#speed" not in html
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
        ("training.<wbr>steps", "<td>40</td><td>50</td>")
    ]


def test_a_corpus_that_is_read_no_longer_stays_in_the_report(
    write_run: WriteRun, tmp_path: Path
) -> None:
    """Its shards are not among those of the configuration, so their documents are unknown."""
    path = write_run(CORPORA, training={"steps": 40, "global_batch_size": 4})
    config = read_run(path).blend
    file_list = Path(config.data_file_list)
    fewer = tmp_path / "fewer.txt"
    lines = file_list.read_text().splitlines()
    fewer.write_text("\n".join(line for line in lines if not line.endswith(" code")))
    without = dataclasses.replace(config, data_file_list=fewer)
    trained(tmp_path / "run/checkpoint", [config, without], steps=10)
    text = path.read_text().replace(str(file_list), str(fewer))
    (tmp_path / "run/config.toml").write_text(text)
    run = gather_run(tmp_path / "run", name="run")
    html = page_html(report_page([run]))

    assert "code" not in run.lengths
    assert re.search(r"<td>code</td>|>code<", without_scripts(html))


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
    shown = capsys.readouterr()
    assert "corpus" in shown.out
    assert f"{output}: {output.stat().st_size:,} bytes" in shown.err


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
