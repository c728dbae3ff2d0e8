"""ASE optimizers: the one-shot move itself, and the move followed by a stock relaxation."""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.optimize import BFGS, FIRE, LBFGS
from ase.optimize.optimize import Optimizer

from deeprelax_ase.interfaces.ase_filters import atoms_of, checked_target, relax_target
from deeprelax_ase.relaxation.options import RelaxOptions, options_from, split_options
from deeprelax_ase.relaxation.relaxer import Relaxer, shared_relaxer
from deeprelax_ase.relaxation.result import RelaxResult
from deeprelax_ase.structures.held import Held

_HOLDING = {"hold", "relax_cell"}


class _WithRelaxer:
    """A relaxer that was given, or the options of one."""

    def _take(
        self, relaxer: Relaxer | None, options: RelaxOptions | None, given: Mapping[str, Any]
    ) -> None:
        if not isinstance(relaxer, Relaxer | None):
            msg = f"relaxer is {relaxer!r}: it has to be a Relaxer"
            raise ValueError(msg)
        self._relaxer = relaxer
        if relaxer is not None:
            extra = sorted(set(given) - _HOLDING)
            if extra or options is not None:
                msg = (
                    f"{', '.join(extra) or 'options'} given beside a relaxer: give them to the "
                    "Relaxer, or leave the relaxer out"
                )
                raise ValueError(msg)
            options = relaxer.options
        self._options = options_from(options, given)

    @property
    def relaxer(self) -> Relaxer:
        """The relaxer, loaded when first needed and shared by optimizers of equal options."""
        if self._relaxer is None:
            self._relaxer = shared_relaxer(self._options)
        return self._relaxer


class DeepRelaxOptimizer(_WithRelaxer, Optimizer):  # type: ignore[misc]
    """Relaxes atoms, and their cell, in one step, without a calculator.

    `run()` is True when the prediction was made, solved and passed its sanity checks. Whether
    forces are small is another question: see `forces_converged`.

    Args:
        atoms: Atoms, whose positions and cell relax, or a filter around them.
        restart: JSON file; if it exists, the atoms have been relaxed already.
        logfile: As in ASE.
        trajectory: As in ASE; gets the unrelaxed and the relaxed frame.
        append_trajectory: As in ASE.
        relaxer: A `Relaxer` to use; by default one is made with the options.
        options: A `RelaxOptions`.
        **kwargs: Options by the names of `RelaxOptions`: `model`, `functional`, `relax_cell`,
            `hold` (besides what a filter holds), ...; others go to
            `ase.optimize.optimize.Optimizer`.

    Raises:
        ValueError: What was given is neither Atoms nor a filter, or asks for pressure.
    """

    def __init__(
        self,
        atoms: Any,
        restart: str | Path | None = None,
        logfile: Any = None,
        trajectory: Any = None,
        append_trajectory: bool = False,
        *,
        relaxer: Relaxer | None = None,
        options: RelaxOptions | None = None,
        **kwargs: Any,
    ) -> None:
        atoms = checked_target(atoms, type(self).__name__)
        own, kwargs = split_options(kwargs)
        self._take(relaxer, options, own)
        self.result: RelaxResult[Any] | None = None
        self._already_relaxed = False
        super().__init__(atoms, restart, logfile, trajectory, append_trajectory, **kwargs)
        self.fmax = 0.05

    @property
    def forces_converged(self) -> bool | None:
        """Whether the forces are below the last `fmax`; None without a calculator."""
        if atoms_of(self.atoms).calc is None:
            return None
        forces = self.atoms.get_forces()
        return bool((np.linalg.norm(forces, axis=1) < self.fmax).all())

    def read(self) -> None:
        """Take over from a restart file: the atoms have been relaxed already."""
        stored = self.load()
        if not isinstance(stored, dict) or "relaxed" not in stored:
            msg = (
                f"{self.restart} is no restart file of {type(self).__name__}: "
                "name another file, or delete it"
            )
            raise ValueError(msg)
        self._already_relaxed = bool(stored["relaxed"])

    def todict(self) -> dict[str, Any]:
        """Description of the run, as trajectories store it."""
        options = self._options
        model = options.model if self._relaxer is None else self._relaxer.weights
        model = getattr(model, "name", model) if not isinstance(model, str | Path) else model
        own = {"model": str(model), "functional": options.functional, "hold": options.hold or ""}
        return super().todict() | own | {"relax_cell": options.relax_cell}

    def converged(self, *_args: Any, **_kwargs: Any) -> bool:
        """Whether the one step has been made and passed its checks; forces play no part."""
        if self.result is None:
            return self._already_relaxed
        return self.result.is_sound

    def step(self, *_args: Any, **_kwargs: Any) -> None:
        """Predict the relaxed structure and move the atoms there."""
        self.result = relax_target(self.atoms, self.relaxer, self._options.held)
        self.dump({"relaxed": self.converged(), "weights": list(self.result.weights)})

    def irun(self, fmax: float = 0.05, steps: int = 1) -> Iterator[bool]:
        """Yield before and after the step, as ASE's optimizers do."""
        self.fmax = fmax
        if self.nsteps == 0:
            self.log()
            self.call_observers()
        yield self.converged()
        if steps > 0 and self.result is None and not self._already_relaxed:
            self.step()
            self.nsteps += 1
            self.log()
            self.call_observers()
            yield self.converged()

    def run(self, fmax: float = 0.05, steps: int = 1) -> bool:
        """Relax in one step; a second call does nothing.

        Args:
            fmax: eV/Å; only for `forces_converged`.
            steps: 0 moves nothing.

        Returns:
            Whether the prediction was made, solved and sound.
        """
        converged = False
        for converged in self.irun(fmax, steps):  # noqa: B007 - the last one counts
            pass
        return converged

    def log(self, *_args: Any, **_kwargs: Any) -> None:
        """One line a frame: change of volume, largest move, expected error, status."""
        if self.logfile is None:
            return
        name = type(self).__name__
        if self.nsteps == 0:
            columns = f"{'Step':>4} {'Volume':>9} {'Move[A]':>9} {'Error[A]':>9}  Status"
            self.logfile.write(f"{' ' * len(name)}  {columns}\n")
        row = f"{name}: {self.nsteps:4d}"
        if self.result is None:
            self.logfile.write(f"{row} {'-':>9} {'-':>9} {'-':>9}  unrelaxed\n")
            return
        result = self.result
        status = f"{result.status} {result.message}".strip()
        self.logfile.write(
            f"{row} {100 * result.volume_change:+8.2f}% {result.largest_displacement:9.4f} "
            f"{result.expected_error:9.4f}  {status}\n"
        )


class _DeepRelaxFirst(_WithRelaxer, Optimizer):  # type: ignore[misc]
    """The one-shot move in front of a stock ASE optimizer.

    Follows ASE's rule that bare Atoms mean a fixed cell; give a cell filter to relax the cell.
    The atoms need a calculator. A prediction that fails its checks leaves them where they were.

    Args:
        atoms: Atoms or a filter around them.
        restart: As in ASE; with an existing file no new move is made.
        *args: Further positional arguments of the stock optimizer.
        relaxer: A `Relaxer` to use; by default one is made with the options.
        options: A `RelaxOptions`.
        **kwargs: Options by the names of `RelaxOptions`; others go to the stock optimizer. What
            `hold` names stays in the first move: afterwards, filter and constraints decide.

    Raises:
        ValueError: What was given is neither Atoms nor a filter, or asks for pressure; on
            running, the atoms have no calculator.
    """

    def __init__(
        self,
        atoms: Any,
        restart: str | Path | None = None,
        *args: Any,
        relaxer: Relaxer | None = None,
        options: RelaxOptions | None = None,
        **kwargs: Any,
    ) -> None:
        atoms = checked_target(atoms, type(self).__name__)
        self.result: RelaxResult[Any] | None = None
        self._move_made = restart is not None and Path(restart).is_file()
        own, kwargs = split_options(kwargs)
        self._take(relaxer, options, own)
        super().__init__(atoms, restart, *args, **kwargs)
        if self._options.held:
            text = (
                f"what is to be held is so in the first move alone: {type(self).__name__} then "
                "relaxes what the filter and the constraints leave free"
            )
            warnings.warn(text, stacklevel=2)

    def irun(self, *args: Any, **kwargs: Any) -> Iterator[bool]:
        """Make the move, then iterate as the stock optimizer does."""
        atoms = atoms_of(self.atoms)
        name = type(self).__name__
        if atoms.calc is None or isinstance(atoms.calc, SinglePointCalculator):
            msg = (
                f"{name} goes on with forces after its first move, and the atoms have no "
                "calculator that finds them: set atoms.calc, or use DeepRelaxOptimizer, which "
                "needs none"
            )
            raise ValueError(msg)
        steps = kwargs.get("steps", args[1] if len(args) > 1 else 1)
        if not self._move_made and steps > 0:
            held = Held() if atoms is not self.atoms else Held.of("cell")
            self.result = relax_target(self.atoms, self.relaxer, self._options.held | held)
            if not self.result.is_sound:
                text = f"{name} starts from the input itself: {self.result.message}"
                warnings.warn(text, stacklevel=2)
            self._move_made = True
        yield from super().irun(*args, **kwargs)

    def run(self, *args: Any, **kwargs: Any) -> bool:
        """Make the move, then relax to `fmax`; True if the forces converged."""
        converged = False
        for converged in self.irun(*args, **kwargs):  # noqa: B007 - the last one counts
            pass
        return bool(converged)


class DeepRelaxBFGS(_DeepRelaxFirst, BFGS):  # type: ignore[misc]
    """The one-shot move, then `ase.optimize.BFGS`."""


class DeepRelaxLBFGS(_DeepRelaxFirst, LBFGS):  # type: ignore[misc]
    """The one-shot move, then `ase.optimize.LBFGS`."""


class DeepRelaxFIRE(_DeepRelaxFirst, FIRE):  # type: ignore[misc]
    """The one-shot move, then `ase.optimize.FIRE`."""
