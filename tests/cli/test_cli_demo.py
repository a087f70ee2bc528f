"""``widelimit demo`` end to end: the report, the JSON, the table, and how it ends."""

import html.parser
import json
import math

import pytest
from typer.testing import CliRunner

import widelimit.cli.demo.experiment as experiment
from widelimit.cli.app import app


def invoke(*arguments):
    return CliRunner().invoke(app, ["demo", *map(str, arguments)])


@pytest.fixture(scope="module")
def run_once(tmp_path_factory):
    """The results, the JSON and the page of one quick run."""
    out = tmp_path_factory.mktemp("demo") / "report.html"
    kept = []
    with pytest.MonkeyPatch.context() as patch:
        compute = experiment.run
        patch.setattr(experiment, "run", lambda *given: kept.append(compute(*given)) or kept[0])
        result = invoke("--quick", "--json", "--seed", 3, "--out", out)
    assert result.exit_code == 0, result.stderr
    assert "Train 4 networks of width 16" in result.stderr
    return kept[0], json.loads(result.stdout), out.read_text("utf-8")


@pytest.fixture(scope="module")
def quick(run_once):
    return run_once[1:]


def test_json_schema(quick):
    found, _ = quick
    assert set(found) == {
        "schema", "settings", "seed", "results", "convergence", "slope", "versions", "machine",
        "seconds", "report",
    }  # fmt: skip
    assert found["schema"] == 1
    assert found["seed"] == 3
    assert found["settings"]["train"] == 300
    assert [r["kind"] for r in found["results"]] == ["nngp", "ntk", "trained", "trained", "trained"]
    assert [r["width"] for r in found["results"]] == [None, None, 16, 64, 256]
    for row in found["results"]:
        assert set(row) == {
            "name", "kind", "width", "networks", "accuracy", "nll", "ece", "seconds"
        }  # fmt: skip
        assert 0 <= row["accuracy"] <= 1
        assert 0 <= row["ece"] <= 1
        assert row["nll"] > 0
        assert math.isfinite(row["nll"])
        assert row["seconds"] > 0
    for one, (width, networks) in zip(found["convergence"], experiment.QUICK.widths):
        assert one["width"] == width
        assert {len(one[k]) for k in ("difference", "accuracy", "agreement", "residual")} == {
            networks
        }


def test_infinite_networks_read_digits_and_wide_ones_come_closer(quick):
    found, _ = quick
    assert min(r["accuracy"] for r in found["results"][:2]) > 0.9
    differences = [max(one["difference"]) for one in found["convergence"]]
    assert differences[0] > differences[1] > differences[2]
    assert found["slope"] < -0.2


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.classes, self.words, self.names = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append(tag)
        self.classes.append(given.get("class"))
        self.names.append(given.get("id"))
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href")]

    def handle_data(self, data):
        self.words.append(data)


def test_report_is_complete_and_stands_alone(quick):
    found, text = quick
    page = Page(text)
    assert page.classes.count("figure") == 2
    assert page.classes.count("digit") == 12
    assert all(link.startswith("#") for link in page.links)
    assert "@import" not in text
    assert "script" not in page.tags
    words = " ".join(page.words)
    assert "def network(params, image):" in words
    for row in found["results"]:
        for number in (f"{row['accuracy']:.1%}", f"{row['nll']:.4f}", f"{row['ece']:.4f}"):
            assert number in words
    for version in found["versions"].values():
        assert version in words
    assert "$" not in words
    assert "#0102" not in text
    assert "#0405" not in text
    assert "/home" not in text
    assert "site-packages" not in text


def test_table_in_the_terminal(run_once, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "run", lambda *_: run_once[0])
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    out = tmp_path / "report.html"
    result = invoke("--quick", "--out", out)
    assert result.exit_code == 0, result.stderr
    assert "def network(params, image):" in result.stdout
    for word in ("NNGP posterior", "NTK, trained to the end", "2 networks, width 256", "NLL"):
        assert word in result.stdout
    for row in run_once[0].rows:
        assert f"{row.accuracy:.2%}" in result.stdout
    assert "\x1b[3" not in result.stdout
    assert Page(out.read_text("utf-8")).tags == Page(run_once[2]).tags


@pytest.mark.parametrize("place", ["missing/report.html", "."])
def test_report_that_cannot_be_written(tmp_path, place):
    result = invoke("--quick", "--out", tmp_path / place)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.rstrip().endswith(".")
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "Interrupted"),
        (RuntimeError("no luck\nat all"), 1, "RuntimeError: no luck (WIDELIMIT_TRACEBACK"),
        (MemoryError(), 1, "not enough memory"),
    ],
)
def test_ends_with_a_sentence(tmp_path, monkeypatch, error, code, words):
    def run(*_):
        raise error

    monkeypatch.setattr(experiment, "run", run)
    monkeypatch.delenv("WIDELIMIT_TRACEBACK", raising=False)
    out = tmp_path / "report.html"
    result = invoke("--json", "--out", out)
    assert result.exit_code == code
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert not out.exists()
