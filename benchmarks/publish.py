"""Write the measured numbers into README, manual and model card.

    python -m benchmarks publish

`weights/README.md` and `docs/tried.md` are made from the templates `model_card.md` and `tried.md`
beside this file. In `README.md` and the other pages under `docs/`, what stands between
`<!-- numbers: NAME -->` and `<!-- end of numbers -->` is replaced by what `tables.BLOCKS` makes of
the results.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from benchmarks import store, tables

_HERE = Path(__file__).parent
_ROOT = _HERE.parent
_BLOCK = re.compile(
    r"(?P<start><!-- numbers: (?P<name>[\w-]+) -->\n).*?(?P<end><!-- end of numbers -->)", re.DOTALL
)
_TEMPLATES = {"model_card.md": "weights/README.md", "tried.md": "docs/tried.md"}


def pages(root: Path = _ROOT, results: Path = store.RESULTS) -> dict[Path, str]:
    """Every page with numbers as it should be.

    Args:
        root: Folder of the project.
        results: Folder of the results.

    Raises:
        ValueError: A page names numbers that nothing makes.
    """
    made: dict[str, str] = {}

    def block(name: str) -> str:
        if name not in tables.BLOCKS:
            msg = f"no numbers {name!r}: choose from {', '.join(tables.BLOCKS)}"
            raise ValueError(msg)
        if name not in made:
            made[name] = tables.BLOCKS[name](results)
        return made[name]

    found = {}
    for page in (root / "README.md", *sorted((root / "docs").glob("*.md"))):
        text = page.read_text()
        if _BLOCK.search(text):
            found[page] = _BLOCK.sub(lambda m: f"{m['start']}{block(m['name'])}\n{m['end']}", text)
    for template, made_page in _TEMPLATES.items():
        text = (_HERE / template).read_text()
        found[root / made_page] = re.sub(r"\{\{([\w-]+)\}\}", lambda m: block(m[1]), text)
    return found


def write_pages() -> None:
    """Bring every page up to date, and say which changed."""
    for page, text in pages().items():
        if not page.is_file() or page.read_text() != text:
            page.write_text(text)
            print(f"written: {page.relative_to(_ROOT)}")


def of_other_weights(results: Path = store.RESULTS) -> Mapping[str, str]:
    """Results of other weights than the shipped ones, by name, with the weights they are of.

    What tells of an experiment (`store.HISTORY`) is of its own weights by nature.
    """
    found = {}
    for path in sorted(results.glob("*.json")):
        if path.stem in store.HISTORY:
            continue
        for weights in store.weights_of(store.read(path.stem, results)):
            if weights != store.shipped()["default"]:
                found[path.stem] = weights
    return found
