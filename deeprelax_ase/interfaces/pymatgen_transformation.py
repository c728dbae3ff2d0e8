"""The one-shot relaxation as a pymatgen transformation.

Importing this module gives `Structure` and `TransformedStructure` an `apply` where they have
none, so that `structure.apply(DeepRelaxTransformation())` works as written.
"""

import warnings
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pymatgen.alchemy.materials import TransformedStructure
from pymatgen.core import IStructure, Structure
from pymatgen.transformations.transformation_abc import AbstractTransformation

from deeprelax_ase.network.weights_registry import (
    SPECIALIST,
    available_weights,
    has_specialist,
    weights_sha256,
)
from deeprelax_ase.relaxation.options import RelaxOptions
from deeprelax_ase.structures.adapter import adapter_of

_OF_STRUCTURE, _OF_SITES = "deeprelax", "expected_error"
"""Properties of a structure and of its sites that say what was expected of the move."""


class DeepRelaxTransformation(AbstractTransformation):  # type: ignore[misc]
    """Relaxes a structure in one pass.

    The weights are named, not contained: they load when first used, and a transformation that
    went through JSON or pickle checks that it finds the same ones.

    Args:
        model: Name of shipped weights or a path.
        functional: Functional of the relaxation that is predicted.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        annotate: Add the site property `expected_error` (Å) and a `deeprelax` entry in the
            structure's properties, with the message that tells what was left as it was.
        sha256: Of the weights; None takes whatever the name stands for.
        sheets_sha256: Of those that `default` takes for sheets; None takes what is there.
        **options: Further options by the names of `RelaxOptions`.

    Raises:
        ValueError: An option or its value is not allowed.
    """

    def __init__(
        self,
        model: str | Path = "default",
        functional: str = "PBE",
        device: str = "auto",
        *,
        annotate: bool = False,
        sha256: str | None = None,
        sheets_sha256: str | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(model, str | Path):
            msg = (
                f"model is a {type(model).__name__}: a transformation names its weights, so that "
                "it can be stored; give a name or a path"
            )
            raise ValueError(msg)
        given = {"model": str(model), "functional": functional, "device": device}
        self.options = RelaxOptions().changed(**given, **options)
        self.annotate = annotate
        self.sha256 = sha256
        self.sheets_sha256 = sheets_sha256

    @property
    def model(self) -> str:
        """Name of the weights, or their path."""
        return str(self.options.model)

    @property
    def functional(self) -> str:
        """The functional that is relaxed to."""
        return self.options.functional

    def apply_transformation(self, structure: Structure) -> Structure:
        """A relaxed copy of the structure.

        A prediction that fails its sanity checks gives an unchanged copy and a warning.

        Raises:
            ValueError: The structure cannot be relaxed, an option is unknown, or the weights are
                not those the transformation was stored with.
        """
        if not isinstance(structure, IStructure):
            msg = (
                f"DeepRelaxTransformation takes a pymatgen Structure, and this is a "
                f"{type(structure).__name__}: AseAtomsAdaptor.get_structure makes one of Atoms"
            )
            raise ValueError(msg)
        # Loading torch takes seconds; a transformation that is only built or stored needs none.
        from deeprelax_ase.relaxation.relaxer import shared_relaxer

        relaxer = shared_relaxer(self.options)
        result = relaxer.relax(structure)
        is_specialist = result.weights.sha256 != relaxer.weights.sha256
        self._check_weights(result.weights, self.sheets_sha256 if is_specialist else self.sha256)
        if not result.is_sound:
            warnings.warn(f"{result.formula}: {result.message}", stacklevel=2)
        made = result.structure if result.is_sound else adapter_of(structure).copied(structure)
        relaxed: Structure = _without_annotations(made)
        if self.annotate:
            facts = result.facts()
            relaxed.properties[_OF_STRUCTURE] = {
                "expected_error": facts["expected_error"],
                "gain_probability": facts["gain_probability"],
                "uncertainty": facts["uncertainty"],
                "status": result.status,
                "message": result.message,
                "notes": [note.code for note in result.notes],
                "weights": result.weights.name,
                "sha256": result.weights.sha256,
            }
            relaxed.add_site_property(_OF_SITES, result.site_errors.tolist())
        return relaxed

    def _sha256(self) -> str:
        """Hash of the weights, and of their replicates where these are asked for."""
        return weights_sha256(self.options.model, ensemble=self.options.ensemble)

    def _check_weights(self, weights: Any, expected: str | None) -> None:
        if expected is None or expected == weights.sha256:
            return
        has_replicates = self.options.ensemble and weights.name != SPECIALIST
        if has_replicates and expected == self._sha256():
            return
        is_ours = weights.name in available_weights()
        way = (
            "install the version of deeprelax-ase it was made with"
            if is_ours
            else "put the file back that was there then"
        )
        msg = (
            f"the weights {weights.name!r} have the SHA-256 {weights.sha256[:12]}..., and this "
            f"transformation was made with {expected[:12]}...: {way}, or pass sha256=None and "
            "sheets_sha256=None"
        )
        raise ValueError(msg)

    def __call__(self, structure: Structure) -> Structure:
        """The same as `apply_transformation`."""
        return self.apply_transformation(structure)

    def as_dict(self) -> dict[str, Any]:
        """The arguments under their own names, with the hashes of the weights."""
        module, name = type(self).__module__, type(self).__name__
        head = {"@module": module, "@class": name, "@version": version("deeprelax-ase")}
        return head | asdict(self.options) | {"annotate": self.annotate} | self._hashes()

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled, with the hashes of the weights."""
        return vars(self) | self._hashes()

    def _hashes(self) -> dict[str, str | None]:
        sheets = self.sheets_sha256
        if sheets is None and has_specialist(self.options.model):
            sheets = weights_sha256(SPECIALIST)
        return {
            "sha256": self.sha256 or self._sha256(),
            "sheets_sha256": sheets,
        }

    def __repr__(self) -> str:
        return f"DeepRelaxTransformation(model={self.model!r}, functional={self.functional!r})"


def _without_annotations(structure: Structure) -> Structure:
    """A structure without what an earlier move was annotated with."""
    if structure.properties.pop(_OF_STRUCTURE, None) is not None:
        for site in structure:
            site.properties.pop(_OF_SITES, None)
    return structure


def _apply(structure: Structure, transformation: AbstractTransformation) -> Structure:
    """What the transformation makes of this structure, which stays as it is."""
    return transformation.apply_transformation(structure)


def _append(
    transformed: TransformedStructure, transformation: AbstractTransformation
) -> TransformedStructure:
    """Apply a transformation in place, keep it in the history, and return the whole."""
    transformed.append_transformation(transformation)
    return transformed


if not hasattr(Structure, "apply"):
    Structure.apply = _apply
if not hasattr(TransformedStructure, "apply"):
    TransformedStructure.apply = _append
