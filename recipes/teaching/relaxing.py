"""Relax many structures side by side, so that one call of a potential serves all of them.

ASE's optimizers and filters do the moving. Each structure has a calculator that only holds what the
last batch said of it.
"""

from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS, LBFGS
from ase.stress import full_3x3_to_voigt_6_stress

from recipes.teaching.potentials import Potential, Response

FMAX = 0.05
"""eV/Å; for the cell, volume times stress over the count of atoms (eV)."""
_LARGEST_STEP = 0.2
_STIFFNESS = 35.0
"""eV/Å^2 of an atom, to start with. ASE's 70 takes a third more steps (measured on 20 inputs)."""
_CELL_STIFFNESS = 1.0
"""eV/Å^3 of a crystal, for the same purpose."""
_LARGEST_FORCE = 300.0
_MOST_FOR_BFGS = 60
"""Atoms; BFGS diagonalises its Hessian, which costs more than it saves in larger cells."""
_IN_PLANE = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 0]], dtype=float)
_VOLUME_OF_ATOM = 15.0
CELLS = ("free", "in_plane", "held")


@dataclass(frozen=True)
class Request:
    """A structure to relax.

    Attributes:
        atoms: With its constraints.
        cell: `free`, `in_plane` (the third vector is held) or `held`.
        potential: Name of the potential.
        steps: After so many it is given up.
        fmax: Forces at which it is relaxed, eV/Å.
    """

    atoms: Atoms
    cell: str
    potential: str
    steps: int = 200
    fmax: float = FMAX


@dataclass(frozen=True)
class Relaxed:
    """How a relaxation ended.

    Attributes:
        atoms: Where it stopped.
        steps: Made so far.
        trouble: Why it is of no use; empty where it converged.
    """

    atoms: Atoms
    steps: int
    trouble: str


Job = Generator[Request, Relaxed, Any]
"""Yields what it wants relaxed, is sent the relaxed one, and returns what it was for."""


class _Held(Calculator):
    """Returns what it was given for the positions it was given for."""

    implemented_properties = ("energy", "forces", "stress")

    def store(self, atoms: Atoms, response: Response) -> None:
        """Keep a potential's answer."""
        self.atoms = atoms.copy()
        voigt = full_3x3_to_voigt_6_stress(response.stress)
        self.results = {"energy": response.energy, "forces": response.forces, "stress": voigt}

    def calculate(self, *_: Any, **__: Any) -> None:
        """Refuse: a batch calculates."""
        msg = "the optimizer asked for forces at positions that no batch has calculated"
        raise RuntimeError(msg)


class _Run:
    """One structure on its way."""

    def __init__(self, number: int, job: Job, request: Request) -> None:
        self.number, self.job, self.request = number, job, request
        self.atoms = request.atoms.copy()
        self.calculator = _Held()
        self.atoms.calc = self.calculator
        self.steps = 0
        moved: Any = self.atoms
        if request.cell != "held":
            mask = _IN_PLANE if request.cell == "in_plane" else np.ones((3, 3))
            # ASE's own factor, the count of atoms, makes the cell seem far stiffer than it is.
            factor = (self._filled_volume() * _CELL_STIFFNESS / _STIFFNESS) ** 0.5
            moved = FrechetCellFilter(self.atoms, mask=mask, exp_cell_factor=factor)
        optimizer = BFGS if len(self.atoms) <= _MOST_FOR_BFGS else LBFGS
        self.moved = moved
        self.optimizer = optimizer(moved, logfile=None, maxstep=_LARGEST_STEP, alpha=_STIFFNESS)
        self.volume = self.atoms.get_volume()

    def _filled_volume(self) -> float:
        """Of the crystal without vacuum, Å^3."""
        if self.request.cell == "in_plane":
            return _VOLUME_OF_ATOM * len(self.atoms)
        return self.atoms.get_volume()

    def _largest_force(self) -> float:
        """Of atoms (eV/Å), and of the cell (virial in eV an atom) where it is free."""
        largest = float(np.linalg.norm(self.atoms.get_forces(), axis=1).max())
        if self.request.cell == "held":
            return largest
        virial = self.atoms.get_stress(voigt=False) * self.atoms.get_volume() / len(self.atoms)
        if self.request.cell == "in_plane":
            virial = virial[:2, :2]
        return max(largest, float(np.abs(virial).max()))

    def advance(self, response: Response) -> Relaxed | None:
        """Take one step; what came out where that was the last."""
        self.calculator.store(self.atoms, response)
        largest = self._largest_force()
        trouble = ""
        if not np.isfinite(largest) or largest > _LARGEST_FORCE:
            trouble = "forces without bounds"
        elif abs(np.log(self.atoms.get_volume() / self.volume)) > 1.0:
            trouble = "volume changed by more than a factor e"
        elif largest > self.request.fmax and self.steps >= self.request.steps:
            trouble = "not converged"
        if trouble or largest <= self.request.fmax:
            return self._end(trouble)
        self.optimizer.step()
        self.steps += 1
        return None

    def _end(self, trouble: str) -> Relaxed:
        atoms = self.atoms.copy()
        return Relaxed(atoms, self.steps, trouble)


def run_jobs(
    jobs: Iterable[tuple[int, Job]], potentials: Mapping[str, Potential], atoms_at_once: int
) -> Iterator[tuple[int, Any]]:
    """Run jobs side by side; each one's number and what it returned, as they end.

    Args:
        jobs: Numbered. They are started as room is made.
        potentials: By name.
        atoms_at_once: New jobs are started while fewer atoms are being relaxed.
    """
    waiting = iter(jobs)
    running: list[_Run] = []
    while True:
        while sum(len(run.atoms) for run in running) < atoms_at_once:
            following = next(waiting, None)
            if following is None:
                break
            yield from _go_on(running, *following, None)
        if not running:
            return
        for name in sorted({run.request.potential for run in running}):
            group = [run for run in running if run.request.potential == name]
            responses = potentials[name]([run.atoms for run in group])
            for run, response in zip(group, responses, strict=True):
                relaxed = run.advance(response)
                if relaxed is not None:
                    running.remove(run)
                    yield from _go_on(running, run.number, run.job, relaxed)


def _go_on(
    running: list[_Run], number: int, job: Job, relaxed: Relaxed | None
) -> Iterator[tuple[int, Any]]:
    """Send a job what it waits for; run what it asks for next, or yield what it returned."""
    try:
        request = next(job) if relaxed is None else job.send(relaxed)
    except StopIteration as stop:
        yield number, stop.value
    else:
        running.append(_Run(number, job, request))
