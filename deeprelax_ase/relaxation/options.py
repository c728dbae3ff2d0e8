"""Options of a relaxation: one frozen and checked object that every front-end takes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from deeprelax_ase.network.config import EDGES_PER_BATCH, FUNCTIONALS, SOLVER_METHODS
from deeprelax_ase.structures.held import HOLDS, Held
from deeprelax_ase.structures.vacuum import VACUUMS

MOST_PASSES = 20
"""More passes than this are a mistake: nothing moves any more after a few."""
if TYPE_CHECKING:
    Functional = Literal["unknown", "PBE", "PBEsol", "r2SCAN", "optB88-vdW", "PBE-D3"]
    Vacuum = Literal["auto", "none"]
    Method = Literal["joint", "bed"]
    Hold = str | None
    Probability = float | None
    Switch = bool
    Count = int
else:  # wrong ones are told of below, in a sentence
    Functional = Vacuum = Method = str
    Hold = Probability = Switch = Count = Any


def _text(text: str) -> dict[str, str]:
    """What the command line and the manual say of a field."""
    return {"help": text}


_SWITCHES = ("relax_cell", "keep_symmetry", "allow_unseen", "always_move", "ensemble")


@dataclass(frozen=True)
class RelaxOptions:
    """What a relaxation is made with.

    Attributes:
        model: Name of shipped weights, path of a weights file, loaded `Weights`, or a list
            of `Weights`.
        functional: Exchange-correlation functional of the relaxation that is predicted.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`. ROCm goes by the name `cuda` in torch.
        relax_cell: False keeps the cell, as `hold="cell"` does.
        hold: What stays as it is: `cell`, `volume`, `shape`, cell vectors such as `ab` or `c`,
            `positions` (fractional coordinates), or several with commas between; or `nothing`, not
            even the cell of a slab with fixed atoms.
        vacuum: `auto` never strains across a gap of at least 8 Å along an axis, or of 14 Å along
            any other direction; `none` strains every periodic axis.
        keep_symmetry: Average the result over the space group of the input.
        allow_unseen: Go on with elements that the weights never saw.
        passes: At most so many predictions, each from where the one before it ended; 1 is the
            paper's.
        min_gain: Least probability, 0 to 1, that a move is a gain for it to be made; None: what the
            weights say.
        always_move: Move whatever the probability of a gain.
        ensemble: Predict the mean of all replicates of the weights; their disagreement adds to
            the uncertainty (Eq. 21-24).
        method: How predicted distances become a structure, see `solver.solve`. `bed`, the paper's,
            ends some hundredths of an Å elsewhere for another origin or order of the atoms.
        edges_per_batch: How much is computed at once, in directed edges.

    Raises:
        ValueError: A value is none of those allowed; the message names them.
    """

    model: Any = field(
        default="default", metadata=_text("Name of shipped weights, or a path to a weights file.")
    )
    functional: Functional = field(
        default="PBE", metadata=_text(f"Functional to relax to: {', '.join(FUNCTIONALS)}.")
    )
    device: Any = field(
        default="auto", metadata=_text("auto, cpu, cuda, cuda:N or mps; ROCm is cuda to torch.")
    )
    relax_cell: Switch = field(
        default=True, metadata=_text("Move atoms only: the same as --hold cell.")
    )
    hold: Hold = field(
        default=None, metadata=_text(f"Keep {', '.join(HOLDS)}; several with commas between.")
    )
    vacuum: Vacuum = field(
        default="auto",
        metadata=_text("auto: never strain across a gap of 8 Å or more; none: strain all."),
    )
    keep_symmetry: Switch = field(
        default=True, metadata=_text("Average over the space group of the input.")
    )
    allow_unseen: Switch = field(
        default=False, metadata=_text("Go on with elements the weights never saw.")
    )
    passes: Count = field(default=1, metadata=_text(f"Passes, 1 to {MOST_PASSES}."))
    min_gain: Probability = field(
        default=None,
        metadata=_text("Move where the probability of a gain is at least this, 0 to 1."),
    )
    always_move: Switch = field(
        default=False, metadata=_text("Move whatever the probability of a gain.")
    )
    ensemble: Switch = field(
        default=False, metadata=_text("Mean of all replicates of the weights.")
    )
    method: Method = field(default="joint", metadata=_text("How distances become a structure."))
    edges_per_batch: Count = field(
        default=EDGES_PER_BATCH, metadata=_text("Directed edges that are computed at once.")
    )

    def __post_init__(self) -> None:
        for name, choices in (
            ("functional", FUNCTIONALS),
            ("vacuum", VACUUMS),
            ("method", SOLVER_METHODS),
        ):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in choices:
                msg = f"unknown {name} {value!r}: choose from {', '.join(choices)}"
                raise ValueError(msg)
        edges, passes, gain = self.edges_per_batch, self.passes, self.min_gain
        is_share = isinstance(gain, Real) and not isinstance(gain, bool) and 0 <= gain <= 1
        for name, is_right, what in (
            *(
                (k, isinstance(getattr(self, k), bool | np.bool_), "True or False")
                for k in _SWITCHES
            ),
            ("edges_per_batch", _is_whole(edges) and edges > 0, "a positive whole number"),
            (
                "passes",
                _is_whole(passes) and 1 <= passes <= MOST_PASSES,
                f"a whole number from 1 to {MOST_PASSES}",
            ),
            ("min_gain", gain is None or is_share, "a probability, from 0 to 1"),
        ):
            if not is_right:
                msg = f"{name} is {getattr(self, name)!r}: it has to be {what}"
                raise ValueError(msg)
        if self.hold is not None and not isinstance(self.hold, str):
            msg = f"hold is {self.hold!r}: give names with commas between, such as 'volume,c'"
            raise ValueError(msg)
        names = sorted(Held.of(self.hold).names)
        if (self.hold or "").strip() and not names:
            msg = f"hold is {self.hold!r}: choose from {', '.join(HOLDS)}, or None"
            raise ValueError(msg)
        # As they are stored in JSON, and such that equal options are equal.
        made_of = {
            "model": tuple(self.model) if isinstance(self.model, list) else self.model,
            "device": str(self.device),
            "hold": ",".join(names) or None,
            **{name: bool(getattr(self, name)) for name in _SWITCHES},
            "passes": int(self.passes),
            "edges_per_batch": int(edges),
            "min_gain": None if gain is None else float(gain),
        }
        for name, value in made_of.items():
            object.__setattr__(self, name, value)

    @property
    def held(self) -> Held:
        """What is held, whichever option says so."""
        return Held.of(self.hold) | Held.of(None if self.relax_cell else "cell")

    def changed(self, **changes: Any) -> "RelaxOptions":
        """The same with other values for some options.

        Raises:
            ValueError: A name or a value is not allowed.
        """
        _check_names(changes)
        return replace(self, **changes)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


OPTION_NAMES = tuple(option.name for option in fields(RelaxOptions))


def options_from(options: RelaxOptions | None, changes: Mapping[str, Any]) -> RelaxOptions:
    """Options from an object, from single values, or from both.

    Raises:
        ValueError: A name or a value is not allowed.
    """
    if not isinstance(options, RelaxOptions | None):
        msg = f"options is {options!r}: it has to be a RelaxOptions"
        raise ValueError(msg)
    return (options or RelaxOptions()).changed(**changes)


def split_options(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keyword arguments that are options of a relaxation, and the others."""
    own = {name: value for name, value in given.items() if name in OPTION_NAMES}
    return own, {name: value for name, value in given.items() if name not in own}


def check_limit(name: str, value: Any) -> None:
    """Refuse a limit of expected errors that is none.

    Args:
        name: What it is called.
        value: Å, or None for no limit.

    Raises:
        ValueError: It is no length.
    """
    is_length = isinstance(value, Real) and not isinstance(value, bool) and float(value) >= 0
    if value is not None and not is_length:
        msg = f"{name} is {value!r}: it has to be a length in Å, zero or more"
        raise ValueError(msg)


def _check_names(given: Mapping[str, Any]) -> None:
    for name in given:
        if name not in OPTION_NAMES:
            msg = f"unknown option {name!r}: choose from {', '.join(OPTION_NAMES)}"
            raise ValueError(msg)
