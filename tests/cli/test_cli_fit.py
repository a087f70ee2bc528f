"""``widelimit fit`` and ``predict`` end to end: scores, the report, the model, the sentences."""

import csv
import html.parser
import io
import json
import math

import numpy as np
import pandas as pd
import pytest
from cli_support import CheapRegressor, invoke, lines, sentence
from sklearn.datasets import load_diabetes, load_wine
from sklearn.model_selection import KFold
from sklearn.preprocessing import StandardScaler

from widelimit.cli.fit import baselines
from widelimit.cli.fit.scores import scores
from widelimit.cli.tabular import archive
from widelimit.cli.tabular.model import Prediction
from widelimit.estimators import WideRegressor

FAST = ("--folds", 2, "--no-learn", "--network", "relu x 1")


def table_of(path):
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8"))))


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.classes, self.words = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.classes.append(dict(attrs).get("class"))
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href")]

    def handle_data(self, data):
        self.words.append(data)


def stands_alone(text):
    page = Page(text)
    assert all(link.startswith("#") for link in page.links)
    assert "script" not in page.tags
    for word in ("@import", "url(http", "#0102", "#0405", "site-packages", "/work", "$"):
        assert word not in text, word
    assert 'name="viewport"' in text
    return " ".join(" ".join(page.words).split()), page


# --------------------------------------------------------------------------- the real network


@pytest.fixture(scope="module")
def diabetes(tmp_path_factory):
    """A fit of 60 rows with everything that came of it."""
    folder = tmp_path_factory.mktemp("diabetes")
    frame = load_diabetes(as_frame=True, scaled=False).frame[:60]
    frame.to_csv(folder / "t.csv", index=False)
    files = ("--model", folder / "m.wide", "--report", folder / "r.html")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "_TREES", 10)
        found = invoke("fit", folder / "t.csv", "--target", "target", "--json", *FAST, *files)
    assert found.code == 0, found.err
    return folder, frame, found.json


def test_scores_are_those_of_the_estimator(diabetes):
    _, frame, found = diabetes
    x, y = frame.drop(columns="target").to_numpy(float), frame["target"].to_numpy(float)
    mean, std = np.zeros(60), np.zeros(60)
    for train, test in KFold(2, shuffle=True, random_state=0).split(y):
        scaler = StandardScaler().fit(x[train])
        model = WideRegressor("relu x 1", learn=None).fit(scaler.transform(x[train]), y[train])
        mean[test], std[test] = model.predict(scaler.transform(x[test]), return_std=True)
    got = found["results"][0]["scores"]
    np.testing.assert_allclose(got["r2"], 1 - np.sum((y - mean) ** 2) / np.sum((y - y.mean()) ** 2),
                               rtol=1e-8)  # fmt: skip
    np.testing.assert_allclose(got["rmse"], np.sqrt(np.mean((y - mean) ** 2)), rtol=1e-8)
    density = np.exp(-0.5 * ((y - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(got["nll"], -np.mean(np.log(density)), rtol=1e-8)
    for level, width in ((50, 0.674489750196), (90, 1.644853626951), (95, 1.959963984540)):
        assert got[f"coverage{level}"] == np.mean(np.abs(y - mean) <= width * std)


def test_predictions_after_loading_are_those_before(diabetes, tmp_path):
    folder, frame, _ = diabetes
    x, y = frame.drop(columns="target"), frame["target"].to_numpy(float)
    new = tmp_path / "new.csv"
    x.iloc[:7].to_csv(new, index=False)
    found = invoke("predict", folder / "m.wide", new, "--output", tmp_path / "o.csv", "--json")
    assert found.code == 0, found.err
    assert found.json["columns"] == ["target_mean", "target_std"]
    scaler = StandardScaler().fit(x)
    model = WideRegressor("relu x 1", learn=None).fit(scaler.transform(x), y)
    mean, std = model.predict(scaler.transform(x.iloc[:7]), return_std=True)
    got = pd.read_csv(tmp_path / "o.csv")
    np.testing.assert_allclose(got["target_mean"], mean, rtol=1e-10)
    np.testing.assert_allclose(got["target_std"], std, rtol=1e-10)
    assert list(got.columns) == [*x.columns, "target_mean", "target_std"]


def test_regression_report(diabetes):
    folder, _, found = diabetes
    words, page = stands_alone((folder / "r.html").read_text("utf-8"))
    assert page.classes.count("figure") == 3
    for row in found["results"]:
        assert row["name"] in words
        assert f"{row['scores']['nll']:.3f}" in words
        assert f"{row['scores']['coverage95']:.1%}" in words
    for version in found["versions"].values():
        assert version in words
    for name in ("age", "s6", "most surprising", "least sure", "layers[0].weight"):
        assert name in words


def test_json_schema(diabetes):
    _, _, found = diabetes
    assert set(found) == {
        "schema", "settings", "task", "why", "classes", "rows", "features", "folds", "columns",
        "results", "noise", "scales", "relevance", "log_marginal_likelihood", "notes", "versions",
        "machine", "seconds", "model", "report",
    }  # fmt: skip
    assert (found["schema"], found["task"], found["rows"], found["folds"]) == (
        1, "regression", 60, 2
    )  # fmt: skip
    assert [r["name"] for r in found["results"]] == [
        "infinite network", "mean", "ridge regression", "gradient boosting", "random forest"
    ]
    for row in found["results"]:
        assert all(math.isfinite(v) for v in row["scores"].values())
    assert found["noise"] > 0


def test_classes_with_the_real_network(tmp_path):
    data = load_wine(as_frame=True)
    frame = data.frame.iloc[::3].copy()
    names = np.array(["rouge", "blanc", "rosé"])
    frame["target"] = names[frame["target"]]
    frame.to_csv(tmp_path / "t.csv", index=False)
    files = ("--model", tmp_path / "m.wide", "--report", tmp_path / "r.html")
    fit = ("fit", tmp_path / "t.csv", "--target", "target", "--json", "--no-baselines")
    found = invoke(*fit, *FAST, *files)
    assert found.code == 0, found.err
    assert found.json["classes"] == ["blanc", "rosé", "rouge"]
    assert found.json["results"][0]["scores"]["accuracy"] > 0.85
    words, page = stands_alone((tmp_path / "r.html").read_text("utf-8"))
    assert "rosé" in words
    assert page.classes.count("figure") == 3
    frame.drop(columns="target").to_csv(tmp_path / "new.csv", index=False)
    done = invoke("predict", tmp_path / "m.wide", tmp_path / "new.csv", "--output",
                  tmp_path / "o.csv")  # fmt: skip
    assert done.code == 0, done.err
    got = pd.read_csv(tmp_path / "o.csv")
    p = got[[f"target_p_{c}" for c in found.json["classes"]]].to_numpy()
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-9)
    np.testing.assert_array_equal(
        got["target_predicted"], np.array(found.json["classes"])[p.argmax(1)]
    )
    assert np.mean(got["target_predicted"].to_numpy() == frame["target"].to_numpy()) > 0.95
    model = archive.load(tmp_path / "m.wide")
    again = archive.load(_saved(model, tmp_path / "again.wide"))
    np.testing.assert_allclose(
        again.of_features(model.features).probabilities, p, rtol=0, atol=1e-10
    )


def _saved(model, path):
    archive.save(model, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("load", "task", "score", "least"),
    [(load_diabetes, "regression", "r2", 0.45), (load_wine, "classification", "accuracy", 0.95)],
)
def test_learned_predictions_hold_up_against_baselines(cli, tmp_path, load, task, score, least):
    load(as_frame=True).frame.to_csv("t.csv", index=False)
    found = cli("fit", "t.csv", "--target", "target", "--json")
    assert found.code == 0, found.err
    assert found.json["task"] == task
    network, *others = found.json["results"]
    assert network["scores"][score] > least
    assert network["scores"]["nll"] < min(r["scores"]["nll"] for r in others) + 0.1
    if task == "regression":
        assert abs(network["scores"]["coverage90"] - 0.9) < 0.05
    before = archive.load(tmp_path / "model.wide")
    after = archive.load(_saved(before, tmp_path / "again.wide"))
    for a, b in zip(before.of_features(before.features), after.of_features(before.features)):
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


# --------------------------------------------------------------------------- cheap estimators


@pytest.fixture
def fitted(cli, cheap, shop, tmp_path):
    (tmp_path / "shop.csv").write_text(lines(shop), "utf-8")
    found = cli("fit", "shop.csv", "--target", "price", "--json", "--folds", 2, "--no-baselines")
    assert found.code == 0, found.err
    return found.json


def test_mixed_table(fitted, shop, cli, tmp_path):
    kinds = {c["name"]: c["kind"] for c in fitted["columns"]}
    assert kinds == {
        "id": "dropped", "size": "number", "city": "category", "member": "boolean",
        "since": "date", "constant": "dropped", "empty": "dropped",
    }  # fmt: skip
    gone = sum(row["price"] == "" for row in shop)
    assert gone > 0
    assert fitted["rows"] == len(shop) - gone
    assert f"{gone} rows without a target were left out." in fitted["notes"]
    assert fitted["results"][0]["scores"]["r2"] > 0.5
    words, _ = stands_alone((tmp_path / "report.html").read_text("utf-8"))
    for word in ("semicolons", "names rows", "it is constant", "it has no values", "Köln"):
        assert word in words
    assert cli("predict", "model.wide", "shop.csv", "--output", "o.csv").code == 0
    got = table_of(tmp_path / "o.csv")
    assert [{k: r[k] for k in shop[0]} for r in got] == shop
    for row in got:
        assert abs(float(row["price_mean"]) - 13) < 15
        assert float(row["price_std"]) > 0.1


def test_table_in_the_terminal(cli, cheap, shop, tmp_path, monkeypatch):
    (tmp_path / "shop.csv").write_text(lines(shop), "utf-8")
    monkeypatch.setenv("COLUMNS", "80")
    found = cli("fit", "shop.csv", "--target", "price", "--folds", 2)
    assert found.code == 0, found.err
    words = " ".join(found.out.split())
    for word in ("infinite network", "gradient boosting", "RMSE", "names rows", "report.html",
                 "Values are separated by semicolons."):  # fmt: skip
        assert word in words
    assert max(map(len, found.out.splitlines())) <= 80


def test_classes_and_rare_ones(cli, cheap, shop, tmp_path):
    rows = [dict(row) for row in shop]
    for row in rows:
        row["city"] = row["city"] or "Bern"
    rows[3]["city"] = "Basel"
    (tmp_path / "shop.csv").write_text(lines(rows), "utf-8")
    found = cli("fit", "shop.csv", "--target", "city", "--json", "--folds", 3)
    assert found.code == 0, found.err
    assert found.json["classes"] == ["Basel", "Bern", "Köln", "Wien"]
    assert any("fewer rows than there are folds, such as 'Basel'" in n for n in found.json["notes"])
    for row in found.json["results"]:
        assert math.isfinite(row["scores"]["nll"])
    stands_alone((tmp_path / "report.html").read_text("utf-8"))
    assert cli("predict", "model.wide", "shop.csv", "--output", "o.csv").code == 0
    got = table_of(tmp_path / "o.csv")
    np.testing.assert_allclose(
        [sum(float(r[f"city_p_{c}"]) for c in found.json["classes"]) for r in got], 1, atol=1e-12
    )


def test_new_rows_with_surprises(fitted, cli, tmp_path):
    (tmp_path / "new.csv").write_text(
        "extra,since,member,city,size\nq,01.01.2020,yes,Köln,50\nq,,no,Oslo,\nq,01.01.2021,,,1e300\n"
    )
    found = cli("predict", "model.wide", "new.csv", "--output", "o.csv", "--json")
    assert found.code == 0, found.err
    notes = " ".join(found.json["notes"])
    assert "does not know are passed on: 'extra'" in notes
    assert "categories that training did not have" in notes
    assert "'Oslo'" in notes
    assert "'size' has 1 infinite values" in notes
    assert len(table_of(tmp_path / "o.csv")) == 3


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("size,city,member\n1,Bern,yes\n", "lacks columns that the model needs: 'since'"),
        ("size,city,member,since\nbig,Bern,yes,01.01.2020\n", "should hold numbers, but row 1 has"),
        ("size,city,member,since\n1,Bern,9,01.01.2020\n", "should hold yes or no, but row 1 has"),
        ("size,city,member,since\n1,Bern,no,2020-01-01\n", "dates written as %d.%m.%Y, but row 1"),
        ("size,city,member,since,price_std\n1,Bern,no,01.01.2020,1\n", "'price_std' already"),
        ("size,city\n", "no rows"),
    ],
)
def test_new_tables_that_do_not_fit(fitted, cli, tmp_path, text, wanted):
    (tmp_path / "new.csv").write_text(text)
    found = cli("predict", "model.wide", "new.csv", "--output", "o.csv", "--json")
    assert wanted in sentence(found)
    assert found.json == {"error": sentence(found), "code": 2}
    assert not (tmp_path / "o.csv").exists()


def test_parquet_in_both_commands(cli, cheap, shop, tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(shop)
    frame["size"] = pd.to_numeric(frame["size"])
    frame["price"] = pd.to_numeric(frame["price"])
    frame["since"] = pd.to_datetime(frame["since"], format="%d.%m.%Y")
    frame["member"] = frame["member"].map({"yes": True, "no": False}).astype("boolean")
    frame["city"] = frame["city"].replace({"": None})
    frame.to_parquet("t.parquet")
    (tmp_path / "t.csv").write_text(lines(shop), "utf-8")
    a = cli("fit", "t.parquet", "--target", "price", "--json", "--folds", 2, "--no-baselines")
    assert a.code == 0, a.err
    assert cli("predict", "model.wide", "t.parquet", "--output", "a.csv").code == 0
    b = cli("fit", "t.csv", "--target", "price", "--json", "--folds", 2, "--no-baselines")
    assert cli("predict", "model.wide", "t.csv", "--output", "b.csv").code == 0
    assert [r["scores"] for r in a.json["results"]] == [r["scores"] for r in b.json["results"]]
    np.testing.assert_allclose(
        pd.read_csv("a.csv")["price_mean"], pd.read_csv("b.csv")["price_mean"], rtol=1e-12
    )


def test_rows_are_thinned_and_told(cli, cheap, tmp_path):
    x = np.random.default_rng(0).normal(size=(300, 2))
    np.savetxt("t.csv", np.c_[x, x[:, 0]], delimiter=",", header="a,b,y", comments="")
    found = cli("fit", "t.csv", "--target", "y", "--json", "--max-rows", 50, "--no-baselines")
    assert found.json["rows"] == 50
    assert any("50 of 300 rows were drawn at random" in n for n in found.json["notes"])


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["none.csv", "--target", "price"], "Cannot read the table none.csv: No such file"),
        (["shop.csv", "--target", "cost"], "has no such column; it has id, size"),
        (["shop.csv", "--target", "price", "--drop", "x"], "--drop 'x'"),
        (["shop.csv", "--target", "price", "--model", "."], "is a directory"),
        (["shop.csv", "--target", "price", "--report", "no/r.html"], "Cannot write the report"),
        (["shop.csv", "--target", "price", "--model", "shop.csv"], "are the same file"),
        (["shop.csv", "--target", "price", "--model", "report.html"], "are the same file"),
        (["shop.csv", "--target", "city", "--task", "regression"], "regression needs numbers"),
        (["shop.csv", "--target", "since"], "is a date"),
        (["shop.csv", "--target", "constant"], "is constant"),
        (["shop.csv", "--target", "price", "--relevance", "--no-learn"], "--relevance is learned"),
    ],
)
def test_wrong_arguments(cli, cheap, shop, tmp_path, arguments, wanted):
    before = lines(shop)
    (tmp_path / "shop.csv").write_text(before, "utf-8")
    found = cli("fit", *arguments, "--json")
    assert wanted in sentence(found)
    assert found.json == {"error": sentence(found), "code": 2}
    assert (tmp_path / "shop.csv").read_text("utf-8") == before
    assert [p.name for p in tmp_path.iterdir()] == ["shop.csv"]


def test_network_that_is_not_understood(cli, shop, tmp_path):
    (tmp_path / "shop.csv").write_text(lines(shop), "utf-8")
    found = cli("fit", "shop.csv", "--target", "price", "--network", "cosine x 3")
    assert "not understood" in sentence(found)


@pytest.mark.parametrize("arguments", [["--folds", 1], ["--task", "ranking"], ["--kind", "nt"], []])
def test_wrong_usage(cli, arguments):
    target = ["--target", "y"] if arguments else []
    assert cli("fit", "t.csv", *target, *arguments).code == 2


def test_interruption_leaves_older_files(cli, cheap, shop, tmp_path, monkeypatch):
    (tmp_path / "shop.csv").write_text(lines(shop), "utf-8")
    (tmp_path / "model.wide").write_text("old")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(CheapRegressor, "fit", interrupted)
    found = cli("fit", "shop.csv", "--target", "price", "--json")
    assert found.code == 130
    assert found.json["code"] == 130
    assert (tmp_path / "model.wide").read_text() == "old"


def test_nothing_but_json_on_stdout(fitted):
    assert json.dumps(fitted)


# --------------------------------------------------------------------------- scores


def test_perfectly_calibrated_intervals():
    random = np.random.default_rng(1)
    mean, std = random.normal(size=200_000), random.uniform(0.5, 2, 200_000)
    y = mean + std * random.normal(size=200_000)
    found = scores("regression", Prediction(mean, std), y)
    for level in (0.5, 0.9, 0.95):
        bound = 4 * np.sqrt(level * (1 - level) / 200_000)
        assert abs(found[f"coverage{100 * level:.0f}"] - level) < bound
    np.testing.assert_allclose(found["nll"], np.mean(np.log(std)) + 1.4189385, atol=0.01)


def test_probability_zero_is_no_infinite_score():
    p = np.array([[1.0, 0.0], [0.5, 0.5]])
    found = scores("classification", Prediction(probabilities=p), np.array([1, 0]))
    np.testing.assert_allclose(found["nll"], (-np.log(1e-6) + np.log(2)) / 2, rtol=1e-5)
    assert found["accuracy"] == 0.5
