"""Every command in docs/command-line.md runs, and every option there exists."""

import re
import shlex
from pathlib import Path

from widelimit.cli.fit import baselines
from widelimit.cli.userfile import load

PAGE = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text("utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Agreed:
    verdict = "agrees"

    def __rich__(self):
        return "fine"

    def to_dict(self):
        return {}


def test_commands_run(cli, cheap, tmp_path, monkeypatch):
    monkeypatch.setattr(load, "compare", lambda *_, **__: Agreed())
    for task in ("REGRESSORS", "CLASSIFIERS"):
        quick = {k: v for k, v in getattr(baselines, task).items() if k != "gradient boosting"}
        monkeypatch.setattr(baselines, task, quick)
    ran = 0
    for language, code in BLOCK.findall(PAGE):
        if language == "python":
            if code.startswith("# model.py"):
                (tmp_path / "model.py").write_text(code)
            else:
                exec(code, {})
            continue
        for line in code.splitlines():
            words = shlex.split(line, comments=True)
            assert words[0] == "widelimit"
            if len(words) == 2:
                assert cli(words[1], "--help").code == 0
                continue
            found = cli(*words[1:])
            assert found.code == 0, (line, found.err)
            ran += 1
    assert ran >= 7
    assert {p.name for p in tmp_path.iterdir()} > {"model.wide", "report.html", "predicted.csv"}


def test_options_exist(cli):
    known = " ".join(cli(c, "--help").out for c in ("demo", "fit", "predict", "verify"))
    for option in re.findall(r"`(--[a-z-]+)`", PAGE):
        assert option in known, option
