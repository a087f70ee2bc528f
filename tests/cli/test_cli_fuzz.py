"""Damaged, empty, huge, ragged and otherwise hostile tables: a sentence or a right answer."""

import csv
import io
import json
import math

import numpy as np
import pandas as pd
import pytest
from cli_support import invoke

from widelimit.cli.tabular import archive

FIT = ("--target", "y", "--json", "--folds", 2, "--no-baselines")


def clean(random):
    """A small table of all kinds of columns, as rows of text with the header first."""
    count = int(random.integers(8, 25))
    rows = [["size", "city", "member", "since", "y"]]
    for _ in range(count):
        size = random.normal(50, 12)
        year, month = random.integers(2018, 2023), random.integers(1, 13)
        day = f"{year}-{month:02d}-{random.integers(1, 29):02d}"
        city, member = random.choice(["Köln", "Bern"]), random.choice(["yes", "no"])
        y = 0.1 * size + random.normal()
        rows.append([f"{size:.2f}", str(city), str(member), day, f"{y:.3f}"])
    return rows


# --------------------------------------------------------------------------- damage to cells


def one_cell(random, rows, value):
    i, j = random.integers(1, len(rows)), random.integers(len(rows[0]))
    rows[i][j % len(rows[i])] = value


def some_cells(random, rows, values):
    for _ in range(random.integers(1, 6)):
        one_cell(random, rows, str(random.choice(values)))


def whole_column(random, rows, values):
    j = random.integers(len(rows[0]))
    for row in rows[1:]:
        row[j % len(row)] = str(random.choice(values))


def ragged(random, rows):
    row = rows[random.integers(len(rows))]
    row.append("extra") if random.random() < 0.5 else row.pop()


def duplicate_column(random, rows):
    rows[0][random.integers(5)] = rows[0][random.integers(5)]


def rename(random, rows):
    names = ["", " ", "=1+1", "<b>x</b>", "${y}", "a\nb", "名前", "x" * 3000, "$\\alpha$",
             "y_mean"]  # fmt: skip
    rows[0][random.integers(4)] = str(random.choice(names))


def few_rows(random, rows):
    del rows[1 + random.integers(0, 7) :]


def all_missing_target(random, rows):
    for row in rows[1:]:
        row[-1] = str(random.choice(["", "NA", "nan", "?"]))


def many_columns(random, rows):
    extra = int(random.choice([300, 12_000]))
    rows[0] += [f"extra{j}" for j in range(extra)]
    for row in rows[1:]:
        row += ["1.5"] * (extra - 1) + [str(random.integers(9))]


def repeat_rows(random, rows):
    rows += [list(rows[1 + random.integers(len(rows) - 1)]) for _ in range(10)]


ODD = ["inf", "-inf", "1e999", "1e300", "-1e120", "1e-320", "nan", "0x1F", "1_000", "1,5", "1.2,5",
       "12 kg", "٣", "\u202e12", "yes", "maybe", "2020-02-30", "9999-12-31", "0001-01-01", "'", '"',
       'a"b', "a,b", "a;b", "line\nbreak", " ", "\t", "=cmd()", "<script>", "$x^2$", "é" * 500,
       "99999999999999999999999", "-0", "+5", "1e5", "None", "true", "\x0b", "\u2028"]  # fmt: skip
CELLS = [
    lambda r, rows: some_cells(r, rows, ODD),
    lambda r, rows: whole_column(r, rows, ODD),
    lambda r, rows: whole_column(r, rows, ["", "NA"]),
    lambda r, rows: whole_column(r, rows, ["7"]),
    lambda r, rows: whole_column(r, rows, ["1", "2", "3"]),
    lambda r, rows: whole_column(r, rows, ["1e101", "-1e307", "3"]),
    lambda r, rows: one_cell(r, rows, "x" * 140_000),
    ragged, duplicate_column, rename, few_rows, all_missing_target, many_columns, repeat_rows,
]  # fmt: skip


# --------------------------------------------------------------------------- damage to bytes


def cut(random, raw):
    return raw[: random.integers(len(raw))]


def flip(random, raw):
    raw = bytearray(raw)
    for _ in range(random.integers(1, 8)):
        raw[random.integers(len(raw))] ^= 1 << int(random.integers(8))
    return bytes(raw)


def insert(random, raw):
    pieces = [b"\x00", b"\xff\xfe", b'"', b"\n\n", b"\r", b",", b";;;", b"\xc3", b"\x1a", b"\t"]
    at = random.integers(len(raw))
    return raw[:at] + pieces[random.integers(len(pieces))] + raw[at:]


def encode(random, raw):
    form = str(random.choice(["utf-16", "latin-1", "utf-8-sig", "cp437", "utf-16-be", "utf-32"]))
    return raw.decode("utf-8", "replace").encode(form, "replace")


def line_ends(random, raw):
    return raw.replace(b"\n", [b"\r\n", b"\r", b"\n\n"][random.integers(3)])


def noise(random, raw):
    return random.bytes(int(random.integers(1, 400)))


BYTES = [cut, flip, flip, insert, insert, encode, line_ends, noise, lambda r, raw: b"",
         lambda r, raw: b"PAR1" + raw, lambda r, raw: b"PK\x03\x04" + raw]  # fmt: skip


def damaged(random):
    rows, separator = clean(random), str(random.choice([",", ";", "\t", "|"]))
    for _ in range(random.integers(0, 3)):
        CELLS[random.integers(len(CELLS))](random, rows)
    out = io.StringIO()
    csv.writer(out, delimiter=separator, lineterminator="\n").writerows(rows)
    raw = out.getvalue().encode()
    if random.random() < 0.5:
        raw = BYTES[random.integers(len(BYTES))](random, raw)
    return raw


# --------------------------------------------------------------------------- the promise


def ended_well(found, wanted=(0, 2)):
    """A documented exit code, one JSON object, one sentence and no traceback."""
    assert found.code in wanted, (found.out, found.err)
    assert "Traceback" not in found.err
    assert "Unexpected" not in found.err
    if found.code:
        assert set(found.json) == {"error", "code"}
        assert found.json["code"] == found.code
        assert found.json["error"].endswith(".")
        assert found.json["error"] in found.err
    else:
        json.dumps(found.json, allow_nan=False)
    return found.code == 0


def independent(raw):
    """The table as pandas reads it, every cell as text; None where pandas needs to be told more."""
    for encoding in ("utf-8-sig", "utf-16"):
        for separator in ",;\t|":
            try:
                frame = pd.read_csv(
                    io.BytesIO(raw), sep=separator, dtype=str, encoding=encoding,
                    keep_default_na=False, index_col=False,
                )  # fmt: skip
            except (ValueError, UnicodeError, pd.errors.ParserWarning):
                continue
            if "y" in frame.columns and len(frame.columns) > 1:
                return frame
    return None


def as_number(word):
    try:
        return float(word.strip().replace("_", "?"))
    except ValueError:
        return math.nan


def right_values(found, model, raw):
    """Whether every value that was learned from is the one in the file, and gaps are told."""
    frame = independent(raw)
    if frame is None:
        return
    training = model.training
    left_out = sum(int(n.split()[0]) for n in found.json["notes"] if "without a target" in n)
    assert len(training.answers) + left_out == len(frame)
    if training.task == "classification":
        shown = [training.classes[k] for k in training.answers]
        kept = [w.strip() for w in frame["y"] if w.strip() not in ("", "NA", "nan", "?", "None")]
        assert len(shown) == len(kept)
        for one, other in zip(shown, kept):
            assert one == other or as_number(one) == as_number(other) or one in ("true", "false")
        return
    plain = not any("," in word for word in frame["y"])
    numbers = np.array([as_number(w) for w in frame["y"]])
    numbers[~np.isfinite(numbers)] = np.nan
    if plain:
        np.testing.assert_array_equal(training.answers, numbers[~np.isnan(numbers)])
    rows = np.flatnonzero(~np.isnan(numbers))
    for column in training.used:
        if column.kind == "number" and column.form == "plain" and column.name in frame:
            wanted = np.array([as_number(w) for w in frame[column.name]])[rows]
            wanted[~np.isfinite(wanted)] = np.nan
            np.testing.assert_array_equal(training.values[column.name], wanted)


def check_fit(seed, folder):
    random = np.random.default_rng(seed)
    raw = damaged(random)
    (folder / "t.csv").write_bytes(raw)
    found = invoke("fit", "t.csv", *FIT)
    if not ended_well(found):
        assert not (folder / "model.wide").exists()
        assert not (folder / "report.html").exists()
        return False
    right_values(found, archive.load(folder / "model.wide"), raw)
    page = (folder / "report.html").read_text("utf-8")
    assert "<script" not in page
    assert "#0102" not in page
    done = invoke("predict", "model.wide", "t.csv", "--output", "o.csv", "--json")
    if ended_well(done):
        with open("o.csv", newline="", encoding="utf-8") as file:
            records = list(csv.reader(file))
        assert len(records) == done.json["rows"] + 1
        assert {len(r) for r in records} == {len(records[0])}
    return True


def check_predict(seed, folder):
    """Rows that damage did not reach are predicted as before."""
    random = np.random.default_rng(seed)
    rows = clean(np.random.default_rng(7))
    for _ in range(random.integers(0, 2)):
        CELLS[random.integers(len(CELLS))](random, rows)
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    raw = out.getvalue().encode()
    if random.random() < 0.7:
        raw = BYTES[random.integers(len(BYTES))](random, raw)
    (folder / "n.csv").write_bytes(raw)
    found = invoke("predict", "good.wide", "n.csv", "--output", "o.csv", "--json")
    if not ended_well(found):
        assert not (folder / "o.csv").exists()
        return False
    with open("o.csv", newline="", encoding="utf-8") as file:
        records = list(csv.DictReader(file))
    assert len(records) == found.json["rows"]
    for record in records:
        assert math.isfinite(float(record["y_mean"]))
        assert float(record["y_std"]) > 0
        known = KNOWN.get(tuple(record[name] for name in USED))
        if known is not None:
            np.testing.assert_allclose(float(record["y_mean"]), known, rtol=1e-9)
    (folder / "o.csv").unlink()
    return True


USED = ("size", "city", "member", "since")
KNOWN = {}


def good_model(folder):
    rows = clean(np.random.default_rng(7))
    with open(folder / "good.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    files = ("--model", "good.wide", "--report", "good.html")
    assert invoke("fit", "good.csv", *FIT, *files).code == 0
    assert invoke("predict", "good.wide", "good.csv", "--output", "o.csv").code == 0
    with open("o.csv", newline="", encoding="utf-8") as file:
        for record in csv.DictReader(file):
            KNOWN[tuple(record[name] for name in USED)] = float(record["y_mean"])
    (folder / "o.csv").unlink()


def run(seeds, check, folder):
    good = 0
    for seed in seeds:
        for name in ("model.wide", "report.html", "o.csv"):
            (folder / name).unlink(missing_ok=True)
        try:
            good += check(seed, folder)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    # The damage is neither always fatal nor never.
    assert len(seeds) / 10 < good < len(seeds) * 9 / 10


def test_fit(cli, cheap, tmp_path):
    run(range(25), check_fit, tmp_path)


def test_predict(cli, cheap, tmp_path):
    good_model(tmp_path)
    run(range(1000, 1060), check_predict, tmp_path)


@pytest.mark.slow
def test_fit_at_length(cli, cheap, tmp_path):
    run(range(100, 600), check_fit, tmp_path)


@pytest.mark.slow
def test_fit_by_evidence_at_length(cli, tmp_path):
    """With the estimators themselves."""
    run(range(600, 820), check_fit, tmp_path)


@pytest.mark.slow
def test_predict_at_length(cli, cheap, tmp_path):
    good_model(tmp_path)
    run(range(2000, 2600), check_predict, tmp_path)
