"""The blocks of the model card that say what the weights are and what they were taught with."""

import json
from pathlib import Path

from ase.data import chemical_symbols

from deeprelax_ase.evaluation.tables import markdown_table
from deeprelax_ase.network.checkpoint import load_weights
from deeprelax_ase.network.weights_registry import available_weights, name_of

_LICENCES = json.loads((Path(__file__).parent / "sources.json").read_text())


def weights_table(_: Path) -> str:
    """All shipped weights: hash, size, and what they were made of."""
    rows = []
    for name in available_weights():
        weights = load_weights(name)
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


def data_table(_: Path) -> str:
    """The files of the last stage of training."""
    rows = []
    for file, entry in load_weights("default").provenance["sources"].items():
        stem = Path(file).stem
        counts = [f"{entry['rows']:,}", f"{entry['passes']:g}"]
        taught = f"taught by {', '.join(entry.get('potentials', ()))} (`recipes/data`)"
        rows.append([f"`{stem}`", *counts, _LICENCES.get(stem, taught)])
    header = ["last stage", "pairs or crystals", "passes an epoch", "source and licence"]
    return markdown_table(header, rows)


def elements_seen(_: Path) -> str:
    """Elements of the crystals that `default` saw."""
    symbols = [chemical_symbols[z] for z in load_weights("default").provenance["elements"]]
    return f"`default` saw {len(symbols)}: {' '.join(symbols)}."
