"""Reading tables and making features of them, against values worked out by hand."""

import datetime

import numpy as np
import pandas as pd
import pytest
from cli_support import lines

from widelimit.cli.exits import Failure
from widelimit.cli.tabular import words
from widelimit.cli.tabular.columns import Column, understand, values_of
from widelimit.cli.tabular.encode import Encoder
from widelimit.cli.tabular.read import Table, read
from widelimit.cli.tabular.target import target


def table(tmp_path, text, name="t.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return read(path)


def of(**columns):
    frame = pd.DataFrame({k: np.array(v, dtype=object) for k, v in columns.items()}, dtype=object)
    return Table("t.csv", frame, ",")


# --------------------------------------------------------------------------- dialects


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("encoding", "note"),
    [("utf-8", ""), ("utf-8-sig", ""), ("latin-1", "Latin-1"), ("utf-16", "UTF-16")],
)
def test_dialects(tmp_path, separator, end, encoding, note):
    rows = (["a", "ü", "c"], ["1", "é", ""], ["2", "", "x"])
    text = end.join(separator.join(row) for row in rows)
    found = table(tmp_path, text + end, encoding=encoding)
    assert found.names == ["a", "ü", "c"]
    assert found.frame.to_numpy().tolist() == [["1", "é", ""], ["2", "", "x"]]
    assert any(note in n for n in found.notes) or not note
    assert found.delimiter == separator


def test_quotes_commas_and_line_ends_inside_values(tmp_path):
    found = table(tmp_path, 'a,"b, c"\n"x, y",1\n"two\nlines",2\n"say ""hi""",3\n')
    assert found.names == ["a", "b, c"]
    assert list(found.frame["a"]) == ["x, y", "two\nlines", 'say "hi"']


def test_delimiter_is_the_one_that_fits_all_lines(tmp_path):
    found = table(tmp_path, "name;size\nx, y, z;1,5\nu, v;2,5\n")
    assert found.names == ["name", "size"]
    assert understand(found, "size")[1].tolist() == [1.5, 2.5]


def test_blank_lines(tmp_path):
    assert len(table(tmp_path, "\n\na,b\n1,2\n\n3,4\n\n").frame) == 2
    # In a single column a blank line is a missing value; dropping it would move the rows.
    assert list(table(tmp_path, "a\n1\n\n3\n\n").frame["a"]) == ["1", "", "3"]


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"a,b\n", "no rows"),
        (b"a,b\n1,2\n3\n", "Line 3 of .* has 1 values where line 1 names 2 columns"),
        (b"a,b\n1,2\n3,4,5\n", "Line 3 of .* has 3 values"),
        (b"a,a\n1,2\n", "the same name: 'a'"),
        (b"a,b\n1,\x002\n", "Line 2 of .* NUL"),
        (b'a,b\n1,"2\n', "is not CSV: unexpected end of data"),
        (b'a,b\n1,"2"x\n', "is not CSV"),
        (b"a,b\n1," + b"x" * 200_000 + b"\n", "is not CSV: field larger than field limit"),
        (b"PK\x03\x04...", "Excel"),
        (b"\x1f\x8b...", "gzip"),
        (b"PAR1 and nonsense PAR1", "is not a readable Parquet file"),
        (b"\xff\xfea", "begins like UTF-16"),
        (b",".join(b"c%d" % i for i in range(10_001)) + b"\n" + b"," * 10_000, "10000 is the most"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, raw, wanted):
    with pytest.raises(Failure, match=wanted) as error:
        table(tmp_path, raw)
    assert error.value.code == 2
    assert str(error.value).endswith(".")


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(Failure, match="Cannot read"):
            read(path)


def test_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    day = datetime.date(2020, 2, 1)
    frame = pd.DataFrame(
        {
            "whole": pd.array([1, None, 3], dtype="Int64"),
            "flag": pd.array([True, None, False], dtype="boolean"),
            "text": ["x", None, "y"],
            "when": [pd.Timestamp("1970-01-02 12:00"), None, pd.Timestamp("1969-12-31")],
            "zone": pd.to_datetime(["1970-01-02 02:00"] * 3, utc=True).tz_convert("Asia/Tokyo"),
            "day": [day, None, day],
            "kind": pd.Categorical(["u", "v", "u"]),
            "list": [[1], [2], [3]],
        }
    )
    frame.to_parquet(tmp_path / "t.parquet")
    found = read(tmp_path / "t.parquet")

    def check(name, kind, wanted):
        column, values = understand(found, name)
        assert column.kind == kind
        np.testing.assert_array_equal(values, np.array(wanted, values.dtype))

    check("whole", "number", [1, np.nan, 3])
    check("flag", "boolean", [1, np.nan, 0])
    assert understand(found, "text")[0].kind in ("category", "dropped")
    check("when", "date", [1.5, np.nan, -1])
    assert understand(found, "zone")[1].tolist() == [1 + 2 / 24] * 3
    check("day", "date", [18293, np.nan, 18293])
    check("kind", "category", ["u", "v", "u"])
    assert understand(found, "list")[0].kind == "dropped"


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(Failure, match=r"pip install 'widelimit\[parquet\]'"):
        table(tmp_path, b"PAR1....")


# --------------------------------------------------------------------------- columns


@pytest.mark.parametrize(
    ("raw", "delimiter", "wanted"),
    [
        (["1", " 2.5 ", "-3e2", ".5"], ",", [1, 2.5, -300, 0.5]),
        (["1", "NA", "", "?", "2"], ",", [1, np.nan, np.nan, np.nan, 2]),
        (["1,234", "5", "1,000,000.5"], ",", [1234, 5, 1000000.5]),
        (["1,5", "2", "-0,25"], ";", [1.5, 2, -0.25]),
        (["1.5", "2"], ";", [1.5, 2]),
        (["1", "inf", "-Infinity", "1e999", "2"], ",", [1, np.nan, np.nan, np.nan, 2]),
        (["007", "1"], ",", [7, 1]),
    ],
)
def test_numbers(raw, delimiter, wanted):
    found = Table("t.csv", pd.DataFrame({"a": raw}, dtype=object), delimiter)
    column, values = understand(found, "a")
    assert column.kind == "number"
    np.testing.assert_array_equal(values, wanted)
    again, _ = values_of(column, found)
    np.testing.assert_array_equal(again, wanted)


@pytest.mark.parametrize("word", ["1_000", "0x10", "١٢", "1,23", "12a", "--1", "nanx"])
def test_not_numbers(word):
    assert understand(of(a=["1", "2", word, word]), "a")[0].kind == "category"


def test_few_odd_words_among_many_numbers_are_missing():
    raw = [str(i) for i in range(60)] + ["n.v.", "n.v."]
    column, values = understand(of(a=raw), "a")
    assert column.kind == "number"
    assert np.isnan(values).sum() == 2
    assert "'n.v.'" in " ".join(column.notes)
    assert np.isnan(values_of(column, of(a=["n.v.", "7"]))[0]).tolist() == [True, False]
    with pytest.raises(Failure, match="row 2 has 'x'"):
        values_of(column, of(a=["1", "x"]))
    # Few different numbers beside a word are categories: 0, 1, 2, 3+.
    assert understand(of(a=["0", "1", "2"] * 30 + ["3+"]), "a")[0].kind == "category"


@pytest.mark.parametrize(
    ("raw", "form", "wanted"),
    [
        (["1970-01-02", "1970-02-01"], "ISO 8601", [1, 31]),
        (["1970-01-01T06:00", "1970-01-02 12:00:00"], "ISO 8601", [0.25, 1.5]),
        (["1970-01-01 02:00+02:00", "1970-01-01T00:00Z"], "ISO 8601", [0, 0]),
        (["02.01.1970", "31.12.1969"], "%d.%m.%Y", [1, -1]),
        (["13/01/1970", "01/02/1970"], "%d/%m/%Y", [12, 31]),
        (["01/13/1970", "02/01/1970"], "%m/%d/%Y", [12, 31]),
        (["2 Jan 1970", "31 Dec 1969"], "%d %b %Y", [1, -1]),
    ],
)
def test_dates(raw, form, wanted):
    found = of(a=[*raw, ""])
    column, values = understand(found, "a")
    assert (column.kind, column.form) == ("date", form)
    np.testing.assert_allclose(values[:2], wanted, rtol=0, atol=1e-12)
    assert np.isnan(values[2])
    with pytest.raises(Failure, match="should hold dates"):
        values_of(column, of(a=["soon"]))


def test_ambiguous_dates_are_told():
    column, values = understand(of(a=["01/02/1970", "03/04/1970"]), "a")
    assert column.form == "%m/%d/%Y"
    assert "%d/%m/%Y was possible" in column.notes[0]
    assert values[0] == 1


@pytest.mark.parametrize("raw", [["yes", "no"], ["TRUE", "False"], ["t", "f"], ["Y", "n"]])
def test_booleans(raw):
    column, values = understand(of(a=[*raw, "", raw[0]]), "a")
    assert column.kind == "boolean"
    np.testing.assert_array_equal(values, [1, 0, np.nan, 1])
    np.testing.assert_array_equal(values_of(column, of(a=["true", "0", "1"]))[0], [1, 0, 1])
    with pytest.raises(Failure, match="should hold yes or no, but row 2 has 'maybe'"):
        values_of(column, of(a=["yes", "maybe"]))


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (["5"] * 4, "constant"),
        (["x"] * 4, "constant"),
        (["2020-01-01"] * 4, "constant"),
        (["yes"] * 4, "constant"),
        (["", "NA", None], "no values"),
        (["a", "b", "c", "d"], "names rows"),
        (["1e200", "2", "3"], "beyond"),
    ],
)
def test_useless_columns_are_dropped(raw, why):
    column, _ = understand(of(a=raw), "a")
    assert column.kind == "dropped"
    assert why in column.why


def test_numbered_rows():
    assert "numbers the rows" in understand(of(id=["1", "2", "3"]), "id")[0].why
    assert understand(of(age=["1", "2", "3"]), "age")[0].kind == "number"


def test_columns_survive_json():
    column = Column("a", "number", "", ("note",), "comma", ("n.v.",))
    assert Column.from_json(column.as_json()) == column


# --------------------------------------------------------------------------- the target


@pytest.mark.parametrize(
    ("raw", "asked", "task", "classes"),
    [
        (["x", "y", "x", ""], "auto", "classification", ("x", "y")),
        (["yes", "no", "yes", "no"], "auto", "classification", ("no", "yes")),
        (["0", "1"] * 6, "auto", "classification", ("0", "1")),
        (["10", "9", "2"] * 6, "auto", "classification", ("2", "9", "10")),
        (["0", "1"] * 6, "regression", "regression", ()),
        (["0.5", "1"] * 6, "auto", "regression", ()),
        (["0.5", "1"] * 6, "classification", "classification", ("0.5", "1")),
        (["1", "2", "3", "4"], "auto", "regression", ()),
    ],
)
def test_task(raw, asked, task, classes):
    found = target(of(y=raw), "y", asked)
    assert (found.task, found.classes) == (task, classes)
    kept = [i for i, word in enumerate(raw) if word]
    assert found.rows.tolist() == kept
    if classes:
        assert [classes[k] for k in found.values] == [raw[i] for i in kept]
    else:
        assert found.values.tolist() == [float(raw[i]) for i in kept]


@pytest.mark.parametrize(
    ("raw", "asked", "wanted"),
    [
        (["", "NA"], "auto", "no values"),
        (["1", "1"], "auto", "constant"),
        (["x", "y", "x"], "regression", "regression needs numbers"),
        (["a", "b", "c", "d"], "auto", "names rows"),
        (["2020-01-01", "2021-01-01"], "auto", "a date"),
        ([str(i / 7) for i in range(150)], "classification", "150 classes"),
    ],
)
def test_targets_that_cannot_be_learned(raw, asked, wanted):
    with pytest.raises(Failure, match=wanted):
        target(of(y=raw), "y", asked)


def test_absent_target():
    with pytest.raises(Failure, match=r"--target 'z': .* no such column; it has y"):
        target(of(y=["1", "2"]), "z", "auto")


# --------------------------------------------------------------------------- features


def test_features_by_hand():
    columns = [Column("n", "number", form="plain"), Column("b", "boolean"), Column("d", "date"),
               Column("c", "category"), Column("gone", "dropped")]  # fmt: skip
    values = {
        "n": np.array([1.0, np.nan, 3.0, 5.0]),
        "b": np.array([1.0, 1.0, 0.0, np.nan]),
        "d": np.array([0.0, 1.0, 7.0, 7.25]),
        "c": np.array(["x", "y", "", "x"], dtype=object),
    }
    encoder = Encoder(columns)
    x = encoder.fit(values)
    names = [tuple(f) for f in encoder.features]
    assert x.shape == (4, len(names)) == (4, 14)

    def feature(column, what):
        return x[:, names.index((column, what))]

    filled = np.array([1.0, 3, 3, 5])
    np.testing.assert_allclose(feature("n", "value"), (filled - 3) / np.sqrt(2), atol=1e-12)
    np.testing.assert_array_equal(feature("n", "is missing"), [0, 1, 0, 0])
    np.testing.assert_allclose(feature("b", "value"), [0.25, 0.25, -0.75, 0.25], atol=1e-12)
    np.testing.assert_array_equal(feature("b", "is missing"), [0, 0, 0, 1])
    week = np.sin(2 * np.pi * values["d"] / 7)
    np.testing.assert_allclose(
        feature("d", "week: sine"), (week - week.mean()) / week.std(), atol=1e-12
    )
    hour = np.cos(2 * np.pi * values["d"])
    np.testing.assert_allclose(
        feature("d", "hour: cosine"), (hour - hour.mean()) / hour.std(), atol=1e-12
    )
    np.testing.assert_array_equal(feature("c", "is x"), [1, 0, 0, 1])
    np.testing.assert_array_equal(feature("c", "is (missing)"), [0, 0, 1, 0])
    np.testing.assert_allclose(encoder.scales, x.std(0))


def test_unseen_and_rare_categories():
    raw = ["a"] * 150 + ["b"] * 150 + ["c", "d"]
    encoder = Encoder([Column("c", "category")])
    x = encoder.fit({"c": np.array(raw, dtype=object)})
    assert [f.what for f in encoder.features] == ["is a", "is b", "is one of 2 rare ones"]
    np.testing.assert_array_equal(x.sum(0), [150, 150, 2])
    new = {"c": np.array(["zebra", "b", "", "d"], dtype=object)}
    np.testing.assert_array_equal(
        encoder.transform(new), [[0, 0, 1], [0, 1, 0], [0, 0, 1], [0, 0, 1]]
    )
    assert encoder.unseen(new) == {"c": ["", "zebra"]}
    few = Encoder([Column("c", "category")])
    few.fit({"c": np.array(["a", "b"] * 5, dtype=object)})
    np.testing.assert_array_equal(few.transform({"c": np.array(["z"], dtype=object)}), [[0, 0]])


def test_gaps_where_training_had_none():
    encoder = Encoder([Column("n", "number"), Column("d", "date")])
    encoder.fit({"n": np.array([1.0, 2, 9]), "d": np.array([0.0, 3, 4])})
    holes = {"n": np.array([np.nan]), "d": np.array([np.nan])}
    full = {"n": np.array([2.0]), "d": np.array([3.0])}
    np.testing.assert_array_equal(encoder.transform(holes), encoder.transform(full))


def test_words_for_nothing_are_no_numbers():
    for word in words.MISSING:
        assert words.STYLES["plain"](word) is None


def test_shop(tmp_path, shop):
    found = table(tmp_path, lines(shop))
    kinds = {name: understand(found, name)[0].kind for name in found.names}
    assert kinds == {
        "id": "dropped", "size": "number", "city": "category", "member": "boolean",
        "since": "date", "constant": "dropped", "empty": "dropped", "price": "number",
    }  # fmt: skip
