"""Every Python example of the README and of the manual runs as it stands there."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, block in enumerate(
        re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    )
]


@pytest.mark.parametrize("block", BLOCKS)
def test_example_runs(block, tmp_path, monkeypatch):
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "example", "exec"), {})  # noqa: S102


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_the_notebook_runs_and_shows_what_it_prints(capsys, monkeypatch):
    """Its outputs are those of the present weights."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    cells = json.loads((ROOT / "examples" / "SnO2.ipynb").read_text())["cells"]
    shown = [
        "".join(output["text"])
        for cell in cells
        for output in cell.get("outputs", ())
        if output["output_type"] == "stream"
    ]
    code = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    exec(compile("\n".join(code), "notebook", "exec"), {})  # noqa: S102
    printed, shown = capsys.readouterr().out, "".join(shown)
    number = re.compile(r"\d+(?:\.\d+)?")
    # Another processor may round another way.
    assert number.sub("", printed) == number.sub("", shown)
    numbers = ([float(word) for word in number.findall(text)] for text in (printed, shown))
    np.testing.assert_allclose(*numbers, rtol=0.05, atol=0.002)


def test_there_are_examples():
    assert len(BLOCKS) >= 11


def test_pages_of_the_manual_are_all_in_its_index():
    listed = set(re.findall(r": (\w+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE))
    assert listed == {path.name for path in (ROOT / "docs").glob("*.md")}


@pytest.mark.parametrize("page", [pytest.param(page, id=page.stem) for page in PAGES])
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target.strip()).exists(), target
