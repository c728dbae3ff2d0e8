"""What weights say of how they were made."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deeprelax_ase.datasets.pair_file import PairFile, file_labels
from deeprelax_ase.network.checkpoint import Weights, elements_seen
from deeprelax_ase.training.config import TrainConfig


def origin(weights: Weights) -> dict[str, Any]:
    """What is known of the weights a run starts from."""
    names = ("steps", "crystals", "hours", "start_from", "elements", "functionals")
    known = {name: weights.provenance[name] for name in names if name in weights.provenance}
    return {"name": Path(weights.name).stem, "sha256": weights.sha256, **known}


def provenance(
    config: TrainConfig, files: Sequence[PairFile], before: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What a run was trained on, and what it started from.

    Args:
        config: Of the run.
        files: Training splits of its sources.
        before: `origin` of what it started from.
    """
    labels = file_labels([source.path for source in config.sources])
    seen = [file.elements_with for file in files] + [elements_seen(before or {})]
    elements = {
        name: sorted(set().union(*(found.get(name, ()) for found in seen)))
        for name in config.network.functionals
        if any(name in found for found in seen)
    }
    known = (before or {}).get("elements", ())
    return {
        "name": config.name,
        "sources": {
            label: {
                "rows": len(file),
                "passes": source.passes,
                **({"potentials": sorted(file.potentials)} if file.potentials else {}),
            }
            for label, source, file in zip(labels, config.sources, files, strict=True)
        },
        "start_from": before,
        "elements": sorted(set(known).union(*elements.values())),
        "functionals": elements,
    }
