"""Every Python block in the README and the docs runs, page by page.

A block that begins with ``python needs NAME`` is left out where that package is not installed.
"""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python(?: needs (\w+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_code_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "__main__"}
    for match in BLOCK.finditer(page.read_text()):
        needed, text = match.groups()
        if needed and importlib.util.find_spec(needed) is None:
            continue
        line = page.read_text()[: match.start()].count("\n") + 1
        code = compile("\n" * line + text, str(page), "exec")
        exec(code, names)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_api_page_is_up_to_date():
    import runpy

    page = ROOT / "docs" / "api.md"
    before = page.read_text()
    try:
        runpy.run_path(str(ROOT / "docs" / "make_api.py"), run_name="__main__")
        assert page.read_text() == before, "run: python docs/make_api.py"
    finally:
        page.write_text(before)
