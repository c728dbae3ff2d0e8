"""The result of a relaxation that a user sees."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, TypeVar, get_args

import numpy as np
from jaxtyping import Float, Int

from deeprelax_ase.structures.notes import Note, sentences

Status = Literal["relaxed", "unchanged", "refused", "failed"]
STATUSES: tuple[Status, ...] = get_args(Status)
SOUND: frozenset[Status] = frozenset({"relaxed", "unchanged"})
"""Statuses of a prediction that passed its checks, whether the move was made or not."""
S = TypeVar("S")
"""Type of the structure: what came in goes out."""


class WeightsName(NamedTuple):
    """Which weights made a result."""

    name: str
    sha256: str


@dataclass(frozen=True, eq=False)
class Bonds:
    """Predicted bonds of a crystal, each pair of atoms once.

    Attributes:
        edge_index: Atoms i (row 0) and j (row 1).
        offsets: Cells of the input between i and j.
        lengths: In the predicted structure, Å.
        uncertainties: Expected error of that length, Å.
        intervals: For each coverage (0.5, 0.8, 0.9), half the width of the interval around the
            length that holds the true one so often, Å.
        distances: What the network says of each pair by itself (Eq. 8), before the solve makes one
            structure of all that was predicted, Å.
    """

    edge_index: Int[np.ndarray, "2 bonds"]
    offsets: Int[np.ndarray, "bonds 3"]
    lengths: Float[np.ndarray, " bonds"]
    uncertainties: Float[np.ndarray, " bonds"]
    intervals: Mapping[float, Float[np.ndarray, " bonds"]]
    distances: Float[np.ndarray, " bonds"]


@dataclass(frozen=True, eq=False)
class RelaxResult(Generic[S]):
    """What came of one structure.

    Attributes:
        structure: Of the type that came in. A moved copy if `relaxed`, a copy as it was if
            `unchanged`, else the input itself (of an iterator, a copy).
        status: `relaxed`; `unchanged`: the move may well do harm, or nothing may move;
            `refused`: the prediction failed a sanity check; `failed`: the input could not be read
            as a crystal.
        notes: What a person should know: short codes with a sentence each.
        strain: Symmetric; `relaxed_cell = cell @ expm(strain)` on the periodic axes.
        displacement: Of every atom, Å, in the frame of the input cell.
        formula: Reduced formula of the input, empty if it failed.
        num_atoms: Atoms of the input.
        functional: That it was relaxed to.
        passes: How many passes were made.
        expected_error: Expected mean error of the bond lengths in the predicted structure, Å: from
            `uncertainty`, the scales of atoms and strain, and how well what was predicted fits
            together, by a fit to validation crystals. It answers for the lattice as well as for
            the atoms.
        gain_probability: That the bond lengths of the predicted structure are nearer to the relaxed
            ones than those of the input. A crystal is moved only where it is large enough.
        expected_gain: By how much they are nearer, in the mean over the bonds, Å: the mean change
            times the probability of a gain less that of a loss. Like `expected_error`, of the move
            that was predicted, also where it was not made.
        uncertainty: System-level uncertainty, the mean over the bonds of their Laplace scales, Å
            (Eq. 24).
        error_signs: The five numbers that `expected_error` is made of, before calibration; none
            without bonds.
        site_errors: Expected error of every atom's displacement, Å.
        strain_error: Expected error of the strain (Frobenius norm).
        bonds: Predicted bonds; None if it failed.
        seconds: Time it took; in a batch, its share by the number of atoms.
        weights: Name and SHA-256 of the weights.
    """

    structure: S
    status: Status
    notes: tuple[Note, ...]
    strain: Float[np.ndarray, "3 3"]
    displacement: Float[np.ndarray, "atoms 3"]
    formula: str
    num_atoms: int
    functional: str
    passes: int
    expected_error: float
    gain_probability: float
    expected_gain: float
    uncertainty: float
    error_signs: Float[np.ndarray, " signs"]
    site_errors: Float[np.ndarray, " atoms"]
    strain_error: float
    bonds: Bonds | None
    seconds: float
    weights: WeightsName

    @property
    def message(self) -> str:
        """The sentences of the notes in one line."""
        return sentences(self.notes)

    @property
    def is_sound(self) -> bool:
        """Whether the prediction passed its checks: `relaxed` or `unchanged`."""
        return self.status in SOUND

    @property
    def volume_change(self) -> float:
        """Relative change of the volume (of the area, of a sheet)."""
        return float(np.exp(np.trace(self.strain)) - 1)

    def facts(self) -> dict[str, Any]:
        """Its numbers and weights by name, as they are stored; None for what is not known."""
        return {
            "volume_change": self.volume_change,
            "largest_displacement": self.largest_displacement,
            "functional": self.functional,
            "passes": self.passes,
            "expected_error": _known(self.expected_error),
            "gain_probability": _known(self.gain_probability),
            "expected_gain": _known(self.expected_gain),
            "uncertainty": _known(self.uncertainty),
            "seconds": self.seconds,
            "weights": self.weights.name,
            "weights_sha256": self.weights.sha256,
        }

    @property
    def largest_displacement(self) -> float:
        """Å."""
        lengths = np.linalg.norm(self.displacement, axis=1)
        return float(lengths.max()) if len(lengths) else 0.0


def _known(value: float) -> float | None:
    """JSON and databases know no NaN."""
    return value if np.isfinite(value) else None
