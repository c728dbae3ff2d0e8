"""Write weights/README.md and docs/tried.md from weights, evaluations and what was tried.

    python -m benchmarks.model_card

The prose is `model_card.md` and `tried.md` beside this file; every number in the tables comes from
the weights files or from `results/`:

    deeprelax evaluate DATA/hypothetical.parquet ... --split test --json > results/test.json

(of which the part by element, nine tenths of it, is not kept).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ase.data import chemical_symbols

from benchmarks.ablation import table as ablation_table
from benchmarks.solves import table as solves_table
from benchmarks.transfer import table as transfer_table
from deeprelax_ase.evaluation.tables import improvement_table, markdown_table, trust_table
from deeprelax_ase.network.checkpoint import load_weights
from deeprelax_ase.network.weights_registry import available_weights, name_of

_HERE = Path(__file__).parent
_ROOT = _HERE.parent
_RESULTS = _HERE / "results"
_LICENCES = json.loads((_HERE / "sources.json").read_text())


def main() -> None:
    """Fill the templates."""
    known = {name: load_weights(name) for name in available_weights()}
    provenance = known["default"].provenance
    card = {
        "weights": _weights(known),
        "data": _data(provenance),
        "elements": _elements("default", provenance),
        "test_improvement": improvement_table(_result("test")),
        "test3_improvement": improvement_table(_result("test-3-passes")),
        "taught_improvement": improvement_table(_result("taught")),
        "test_trust": trust_table(_result("test")),
    }
    tried = {
        "ablation": ablation_table(_result("ablation")),
        "solves": solves_table(_result("solves")),
        **{
            f"transfer_{study}": transfer_table(scores, study)
            for study, scores in _result("transfer").items()
        },
    }
    _fill("model_card.md", card, _ROOT / "weights" / "README.md")
    _fill("tried.md", tried, _ROOT / "docs" / "tried.md")


def _result(name: str) -> Any:
    return json.loads((_RESULTS / f"{name}.json").read_text())


def _fill(template: str, blocks: Mapping[str, str], out: Path) -> None:
    text = (_HERE / template).read_text()
    for name, block in blocks.items():
        text = text.replace(f"{{{{{name}}}}}", block)
    if "{{" in text:
        msg = f"nothing for {text[text.index('{{') :][:40]}"
        raise ValueError(msg)
    out.write_text(text)


def _weights(known: dict[str, Any]) -> str:
    rows = []
    for name, weights in known.items():
        provenance = weights.provenance
        start = provenance.get("start_from")
        origin = "random"
        if start:
            sha256 = start["sha256"]  # shipped under another name, it may be
            origin = f"{name_of(sha256) or start['name']} ({sha256[:8]})"
        rows.append(
            [
                f"`{name}`",
                weights.sha256[:8],
                f"{sum(p.numel() for p in weights.network.parameters()):,}",
                origin,
                f"{provenance['steps']:,}",
                f"{provenance['crystals']:,}",
                f"{provenance['hours']:.1f}",
            ]
        )
    header = ["", "SHA-256", "parameters", "started from", "steps", "crystals shown", "hours"]
    return markdown_table(header, rows)


def _data(provenance: Mapping[str, Any]) -> str:
    rows = []
    for file, entry in provenance["sources"].items():
        stem = Path(file).stem
        counts = [f"{entry['rows']:,}", f"{entry['passes']:g}"]
        taught = f"taught by {', '.join(entry.get('potentials', ()))} (`recipes/data`)"
        rows.append([f"`{stem}`", *counts, _LICENCES.get(stem, taught)])
    header = ["last stage", "pairs or crystals", "passes an epoch", "source and licence"]
    return markdown_table(header, rows)


def _elements(name: str, provenance: dict[str, Any]) -> str:
    symbols = [chemical_symbols[z] for z in provenance["elements"]]
    return f"`{name}` saw {len(symbols)}: {' '.join(symbols)}."


if __name__ == "__main__":
    main()
