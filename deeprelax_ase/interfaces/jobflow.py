"""The one-shot move as a job of jobflow, alone or in front of any maker that takes a structure.

Needs `pip install "deeprelax-ase[jobflow]"`. What atomate2 calls a relaxation (`DoubleRelaxMaker`,
`RelaxMaker`, `ForceFieldRelaxMaker`) goes through `precondition` unchanged.
"""

import inspect
import re
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, PlainSerializer
from pymatgen.core import IStructure, Structure

from deeprelax_ase.relaxation.options import RelaxOptions, check_limit, split_options
from deeprelax_ase.relaxation.relaxer import shared_relaxer
from deeprelax_ase.relaxation.result import RelaxResult

NEEDED_JOBFLOW = "0.1.18"

try:
    from jobflow import Flow, Job, Maker, job
except ImportError as error:
    msg = "jobflow is not installed: pip install 'deeprelax-ase[jobflow]'"
    raise ImportError(msg) from error


def check_version(package: str, needed: str) -> None:
    """Refuse a package that is older than what is needed.

    Raises:
        ImportError: It is.
    """
    found = version(package)
    if _numbers(found) < _numbers(needed):
        msg = (
            f"{package} {found} is too old: this module needs {needed} or newer; "
            f"pip install --upgrade {package}"
        )
        raise ImportError(msg)


def _numbers(name: str) -> tuple[int, ...]:
    """Major, minor and patch of a version."""
    return tuple(int(number) for number in re.findall(r"\d+", name)[:3])


check_version("jobflow", NEEDED_JOBFLOW)


def _as_dict(structure: Structure) -> dict[str, Any]:
    return dict(structure.as_dict())


class UncertainBond(BaseModel):
    """A bond whose expected error is above the limit of the maker."""

    atoms: tuple[int, int] = Field(description="Sites of the structure, from 0 on.")
    offset: tuple[int, int, int] = Field(description="Cells from the first to the second site.")
    length: float = Field(description="Predicted length, Å.")
    uncertainty: float = Field(description="Expected error of that length, Å.")


class DeepRelaxDocument(BaseModel):
    """What a `DeepRelaxMaker` puts into the store."""

    structure: Annotated[Structure, PlainSerializer(_as_dict, when_used="json")] = Field(
        description="Relaxed; the input unless `moved`."
    )
    moved: bool = Field(description="Whether the structure is another one than the input.")
    status: str = Field(description="`relaxed`, `unchanged`, `refused` or `failed`.")
    message: str = Field(description="What a person should know.")
    expected_error: float | None = Field(description="Of the bond lengths, Å, calibrated.")
    gain_probability: float | None = Field(
        description="That the predicted structure is nearer to the relaxed one than the input."
    )
    volume_change: float = Field(description="Relative change of the volume.")
    largest_displacement: float = Field(description="Å.")
    uncertain_bonds: list[UncertainBond] = Field(description="Bonds above the limit.")
    functional: str = Field(description="Of the relaxation that is predicted.")
    weights: str = Field(description="Name of the weights.")
    weights_sha256: str = Field(description="Their SHA-256.")


@dataclass
class DeepRelaxMaker(Maker):  # type: ignore[misc]
    """Makes a job that relaxes a structure in one pass.

    Args:
        name: Of the job.
        model: Name of shipped weights, or a path that exists wherever the job runs.
        functional: Of the relaxation that is predicted.
        device: As in `RelaxOptions`, and so are the next.
        relax_cell: False keeps the cell.
        hold: What stays as it is.
        vacuum: How vacuum is treated.
        passes: At most so many predictions, one from the end of another.
        keep_symmetry: Average over the space group of the input.
        allow_unseen: Go on with elements the weights never saw.
        min_gain: Least probability of a gain for a move; None: what the weights say.
        always_move: Move whatever that probability.
        ensemble: Mean of all replicates.
        max_error: Å; a structure with a higher expected error is handed on as it came.
        bond_limit: Å; bonds with a higher expected error are listed in the document; None: none.
    """

    name: str = "deeprelax"
    model: str = "default"
    functional: str = "PBE"
    device: str = "auto"
    relax_cell: bool = True
    hold: str | None = None
    vacuum: str = "auto"
    keep_symmetry: bool = True
    passes: int = 1
    allow_unseen: bool = False
    min_gain: float | None = None
    always_move: bool = False
    ensemble: bool = False
    max_error: float | None = None
    bond_limit: float | None = 0.2

    def __post_init__(self) -> None:
        """Check the options before a job goes anywhere.

        Raises:
            ValueError: One of them cannot be.
        """
        self._options()
        check_limit("max_error", self.max_error)
        check_limit("bond_limit", self.bond_limit)
        if not isinstance(self.model, str | Path):
            msg = f"model is {self.model!r}: it has to be a name or a path"
            raise ValueError(msg)

    def _options(self) -> RelaxOptions:
        return RelaxOptions(**split_options(vars(self))[0])

    @job(output_schema=DeepRelaxDocument)  # type: ignore[untyped-decorator]
    def make(self, structure: Structure) -> DeepRelaxDocument:
        """Relax a structure; one of which nothing can be predicted is handed on as it came.

        Args:
            structure: Stays as it is.
        """
        if not isinstance(structure, Structure) and isinstance(structure, IStructure):
            charge, properties = structure.charge, structure.properties
            structure = Structure.from_sites(structure, charge=charge, properties=properties)
        relaxer = shared_relaxer(self._options())
        (result,) = relaxer.relax_many([structure])
        return self._document(structure, result)

    def _document(self, structure: Structure, result: RelaxResult[Structure]) -> DeepRelaxDocument:
        facts = result.facts()
        error = facts["expected_error"]
        message = result.message
        moved = bool(result.strain.any() or result.displacement.any())
        if moved and self.max_error is not None and (error is None or error > self.max_error):
            moved = False
            message = f"handed on as it came: expected error above max_error={self.max_error:g} Å"
        return DeepRelaxDocument(
            structure=result.structure if moved else structure,
            moved=moved,
            status=result.status,
            message=message,
            expected_error=error,
            gain_probability=facts["gain_probability"],
            volume_change=facts["volume_change"] if moved else 0.0,
            largest_displacement=facts["largest_displacement"] if moved else 0.0,
            uncertain_bonds=_bonds_above(result, self.bond_limit),
            functional=self.functional,
            weights=facts["weights"],
            weights_sha256=facts["weights_sha256"],
        )


@dataclass
class PreconditionedMaker(Maker):  # type: ignore[misc]
    """Makes a flow: the one-shot move, then another maker's job or flow; see `precondition`.

    Args:
        name: Of the flow.
        maker: What goes on with the structure.
        deeprelax: What goes first.
    """

    name: str = "deeprelax first"
    maker: Maker | None = None
    deeprelax: DeepRelaxMaker = field(default_factory=DeepRelaxMaker)

    def make(self, structure: Structure, prev_dir: Any = None, **kwargs: Any) -> Flow:
        """A flow that relaxes a structure; its output is that of the other maker.

        Args:
            structure: Or a reference to one.
            prev_dir: Handed on to the other maker, if it was given.
            **kwargs: For the other maker.
        """
        if self.maker is None:
            msg = "it has no maker to go on with: make it with precondition(maker)"
            raise ValueError(msg)
        first = self.deeprelax.make(structure)
        if prev_dir is not None:
            kwargs["prev_dir"] = prev_dir
        then: Job | Flow = self.maker.make(structure=first.output.structure, **kwargs)
        return Flow([first, then], output=then.output, name=self.name)


def precondition(maker: Maker, deeprelax: DeepRelaxMaker | None = None) -> PreconditionedMaker:
    """Put the one-shot move in front of a maker.

    Args:
        maker: Whose `make` takes a structure first, such as any relaxation of atomate2.
        deeprelax: What goes first; default: one with the defaults.

    Raises:
        ValueError: It is no maker, or one that takes no structure.
    """
    if not isinstance(deeprelax, DeepRelaxMaker | None):
        msg = f"deeprelax is {deeprelax!r}: it has to be a DeepRelaxMaker"
        raise ValueError(msg)
    if not isinstance(maker, Maker):
        what = getattr(maker, "__name__", type(maker).__name__)
        msg = f"precondition takes a jobflow Maker, made with its options, and got {what}"
        raise ValueError(msg)
    names = list(inspect.signature(maker.make).parameters)
    if "structure" not in names:
        msg = (
            f"{type(maker).__name__}.make takes {', '.join(names) or 'nothing'}, and no structure: "
            "put DeepRelaxMaker into the flow where the structure is made"
        )
        raise ValueError(msg)
    return PreconditionedMaker(f"deeprelax, {maker.name}", maker, deeprelax or DeepRelaxMaker())


def _bonds_above(result: RelaxResult[Structure], limit: float | None) -> list[UncertainBond]:
    bonds = result.bonds
    if bonds is None or limit is None:
        return []
    above = (bonds.uncertainties > limit).nonzero()[0]
    return [
        UncertainBond(
            atoms=tuple(bonds.edge_index[:, k].tolist()),
            offset=tuple(bonds.offsets[k].tolist()),
            length=float(bonds.lengths[k]),
            uncertainty=float(bonds.uncertainties[k]),
        )
        for k in above
    ]
