"""Write weights/README.md from the weights, their evaluations and what was tried.

    python -m benchmarks.model_card

The prose is `model_card.md` beside this file; every number in the tables comes from the weights
files or from `results/`:

    deeprelax evaluate DATA/hypothetical.parquet ... --split test --json > results/test.json

(of which the part by element, nine tenths of it, is not kept).
"""

import csv
import json
from pathlib import Path
from typing import Any

from ase.data import chemical_symbols

from benchmarks.ablation import table as ablation_table
from benchmarks.accuracy import table as rivals_table
from benchmarks.solves import table as solves_table
from benchmarks.transfer import table as transfer_table
from deeprelax_ase.evaluation.tables import (
    error_table,
    improvement_table,
    markdown_table,
    trust_table,
)
from deeprelax_ase.network.checkpoint import load_weights
from deeprelax_ase.network.weights_registry import available_weights, name_of

_HERE = Path(__file__).parent
_RESULTS = _HERE / "results"
_LICENCES = {
    "hypothetical": "hypothetical pnictides, PBE: Pandey et al., Patterns 2, 100361 (2021); "
    "prashungorai/papers (MIT)",
    "substitution": "isostructural substitution pairs from the Materials Project (CC BY 4.0)",
    "substitution_more": "more of them, four neighbours a crystal, by `deeprelax data substitute` "
    "from `relaxed`",
    "substitution_2d": "the same for sheets: diegonti/mxene-db (MIT), 2DMatPedia by way of "
    "Franklalalala/learn_2dmatpedia (MIT) and lalaheihaihei/catalyticLAM (GPL-3.0), "
    "PaddlePaddle/PaddleMaterial (Apache-2.0)",
    "substitution_2d_more": "more of them, ten neighbours a sheet, from `relaxed_2d`",
    "functional": "PBE to r2SCAN: Materials Project 2018 to 2024 (CC BY 4.0); PBE to PBEsol: "
    "phonondb, A. Togo, by way of WMD-group/phononDB (CC BY 4.0)",
    "exfoliation_2d": "layers of Materials Project crystals to 2DMatPedia sheets",
    "defects_and_hydrides": "JasonGibsonUfl/Augmented_CGCNN (MIT), SMTG-Bham/doped and "
    "ShakeNBreak (MIT)",
    "distilled": "crystals of `relaxed` with species exchanged, as two networks relax them, by "
    "`benchmarks/distill.py`",
    "distilled_hypothetical": "inputs of `hypothetical` with species exchanged, likewise",
    "distilled_hypothetical_b": "other such inputs, as three networks relax them",
    "distilled_substitution": "inputs of `substitution` with species exchanged, likewise",
    "distilled_functional": "crystals of `relaxed` under another functional, likewise",
    "distilled_through": "as `distilled`, for PBEsol and r2SCAN by way of PBE",
    "distilled_hypothetical_through": "as `distilled_hypothetical`, for PBEsol and r2SCAN by way "
    "of PBE",
    "distilled_2d": "sheets of `relaxed_2d` with species exchanged, likewise",
    "distilled_exfoliation": "inputs of `exfoliation_2d` with species exchanged, likewise",
    "relaxed": "Materials Project (CC BY 4.0), by way of fxcoudert/topology_databases and "
    "kdmsit/crysxpp; disturbed on the fly",
    "relaxed_more": "hypothetical battery compounds, Heuslers, Alexandria binaries and a sample of "
    "WBM: jlaw9/upper-bound-energy-gnn (MIT), ksyang2013/Heusler (MIT), "
    "materialsvirtuallab/matcalc (BSD-3)",
    "battery": "substitution pairs of hypothetical battery compounds: "
    "jlaw9/upper-bound-energy-gnn (MIT)",
    "heusler": "substitution pairs of double half-Heuslers: "
    "Danil-phy-cmp-120/rsf-24-12-20016-thermoelectric-heuslers (MIT)",
    "orderings": "orderings on ideal lattices: sekocha/pyclupan (BSD-3), CederGroupHub/smol "
    "(BSD-3)",
    "relaxed_2d": "the sheets of the sources above, disturbed on the fly",
}
_CURVE = ("displacement", "lattice", "volume")


def main() -> None:
    """Fill the template."""
    names = available_weights()
    known = {name: load_weights(name) for name in names}
    first = [name for name in names if "-" not in name]  # the others are replicates
    blocks = {
        "weights": _weights(known),
        "data": "\n\n".join(
            _data(name, known[name].provenance) for name in names if "-" not in name
        ),
        "curves": "\n\n".join(_curve(path) for path in sorted(_RESULTS.glob("curve-*.csv"))),
        "elements": "\n\n".join(_elements(name, known[name].provenance) for name in first),
        "rivals": rivals_table(
            json.loads((_RESULTS / "accuracy-test.json").read_text())["hypothetical"]
        ),
        "solves": solves_table(json.loads((_RESULTS / "solves.json").read_text())),
        **_transfer(),
        "ablation": ablation_table(json.loads((_RESULTS / "ablation.json").read_text())),
        **{
            f"{split}_{kind}": make(json.loads((_RESULTS / f"{split}.json").read_text()))
            for split in ("val", "test")
            for kind, make in (
                ("improvement", improvement_table),
                ("errors", error_table),
                ("trust", trust_table),
            )
            if (_RESULTS / f"{split}.json").exists()
        },
    }
    text = (_HERE / "model_card.md").read_text()
    for name, block in blocks.items():
        text = text.replace(f"{{{{{name}}}}}", block)
    if "{{" in text:
        msg = f"nothing for {text[text.index('{{') :][:40]}"
        raise ValueError(msg)
    (_HERE.parent / "weights" / "README.md").write_text(text)


def _transfer() -> dict[str, str]:
    results = json.loads((_RESULTS / "transfer.json").read_text())
    return {f"transfer_{study}": transfer_table(scores, study) for study, scores in results.items()}


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


def _data(name: str, provenance: dict[str, Any]) -> str:
    rows = []
    for file, entry in provenance["sources"].items():
        stem = Path(file).stem
        counts = [f"{entry['rows']:,}", f"{entry['passes']:g}"]
        rows.append([f"`{stem}`", *counts, _LICENCES[stem]])
    header = [f"`{name}`", "pairs or crystals", "passes an epoch", "source and licence"]
    return markdown_table(header, rows)


def _curve(path: Path) -> str:
    """Displacement / lattice / volume by step, of the sets that a run was validated on."""
    with path.open() as stream:
        rows = list(csv.DictReader(stream))
    sets = list(dict.fromkeys(row["set"] for row in rows))
    steps = list(dict.fromkeys(int(row["step"]) for row in rows))
    cells = {(int(row["step"]), row["set"]): row for row in rows}
    lines = [
        [f"{step:,}"]
        + [" / ".join(f"{float(cells[step, name][m]):.0f}" for m in _CURVE) for name in sets]
        for step in steps
    ]
    header = [f"`{path.stem.removeprefix('curve-')}`, steps", *(f"`{name}`" for name in sets)]
    return markdown_table(header, lines)


def _elements(name: str, provenance: dict[str, Any]) -> str:
    symbols = [chemical_symbols[z] for z in provenance["elements"]]
    return f"`{name}` saw {len(symbols)}: {' '.join(symbols)}."


if __name__ == "__main__":
    main()
