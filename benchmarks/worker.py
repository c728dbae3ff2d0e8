"""What runs in a rival's environment: tasks come in as JSON lines, answers go out the same way.

    python worker.py ADAPTER.py [WEIGHTS]

Started by `rival.py`; knows ASE and one adapter, nothing of this project. A task that fails is
answered with its error, and the next one is taken.
"""

import importlib.util
import inspect
import json
import os
import resource
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS, FIRE

_OPTIMIZERS = {"FIRE": FIRE, "BFGS": BFGS}
_KIB = 1024


class Worker:
    """One adapter and what it has loaded so far."""

    def __init__(self, adapter: str, weights: str | None) -> None:
        spec = importlib.util.spec_from_file_location("adapter", adapter)
        assert spec is not None
        assert spec.loader is not None
        self.adapter = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.adapter)
        self.weights = weights
        self._calculators: dict[str, Any] = {}
        self._packaged: Any = None

    def answer(self, task: dict[str, Any]) -> dict[str, Any]:
        """Carry out one task."""
        answers = {
            "hello": self.hello,
            "relax": self.relax,
            "packaged": self.packaged,
            "energy": self.energy,
        }
        return answers[task["do"]](task)

    def hello(self, task: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """What can be asked of this rival."""
        return {
            "packaged": hasattr(self.adapter, "packaged"),
            "functionals": getattr(self.adapter, "FUNCTIONALS", []),
            "quick": "quick" in inspect.signature(self.adapter.calculator).parameters,
        }

    def relax(self, task: dict[str, Any]) -> dict[str, Any]:
        """Relax atoms and cell with an optimizer of ASE, or what of them is not held.

        `fixed`: indices of atoms that stay; `mask`: which strains (Voigt) are free, all by default.
        """
        atoms = self._atoms(task)
        if "fixed" in task:
            atoms.set_constraint(FixAtoms(task["fixed"]))
        mask = task.get("mask", [True] * 6)
        movable = FrechetCellFilter(atoms, mask=mask) if any(mask) else atoms
        atoms.calc = self._fresh_calculator(task)
        volume = atoms.get_volume()
        energies: list[float] = []
        started = time.perf_counter()
        with _OPTIMIZERS[task["optimizer"]](movable, logfile=None) as optimizer:
            optimizer.attach(lambda: energies.append(float(atoms.get_potential_energy())))
            optimizer.attach(lambda: _check(atoms, volume))
            converged = optimizer.run(fmax=task["fmax"], steps=task["steps"])
            steps = optimizer.nsteps
        seconds = time.perf_counter() - started
        return {
            "seconds": seconds,
            "steps": steps,
            "converged": bool(converged),
            "energies": energies,
            **_geometry(atoms),
        }

    def packaged(self, task: dict[str, Any]) -> dict[str, Any]:
        """Relax with the package's own relaxer at its defaults."""
        if self._packaged is None:
            self._packaged = self.adapter.packaged(self.weights)
        started = time.perf_counter()
        atoms, steps = self._packaged(self._atoms(task))
        return {"seconds": time.perf_counter() - started, "steps": steps, **_geometry(atoms)}

    def energy(self, task: dict[str, Any]) -> dict[str, Any]:
        """Energy (eV) and the largest force (eV/Å)."""
        atoms = self._atoms(task)
        atoms.calc = self._fresh_calculator(task)
        started = time.perf_counter()
        energy = float(atoms.get_potential_energy())
        force = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
        return {"seconds": time.perf_counter() - started, "energy": energy, "largest_force": force}

    def _atoms(self, task: dict[str, Any]) -> Atoms:
        pbc = getattr(self.adapter, "PERIODIC", False) or task["pbc"]
        return Atoms(task["numbers"], task["positions"], cell=task["cell"], pbc=pbc)

    def _fresh_calculator(self, task: dict[str, Any]) -> Any:
        """The calculator, made once for the same options, unless it has to be made every time."""
        options = task.get("options") or {}
        key = json.dumps(options, sort_keys=True)
        if key not in self._calculators or getattr(self.adapter, "MADE_EVERY_TIME", False):
            self._calculators = {key: self.adapter.calculator(self.weights, **options)}
        return self._calculators[key]


def _geometry(atoms: Atoms) -> dict[str, Any]:
    return {"positions": atoms.positions.tolist(), "cell": np.array(atoms.cell).tolist()}


def _check(atoms: Atoms, volume: float) -> None:
    """Stop a relaxation that has left the realm of crystals."""
    energy = atoms.get_potential_energy()
    if not np.isfinite(energy) or not 0.1 < atoms.get_volume() / volume < 10:
        msg = f"diverged: energy {energy:.3g} eV, volume {atoms.get_volume():.3g} Å^3"
        raise ArithmeticError(msg)


def peak_memory() -> int:
    """Most memory (bytes) that this process has had.

    `ru_maxrss` counts what the process had that started this one, on Linux; `VmHWM` does not.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * _KIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB


def main() -> None:
    """Answer tasks until there are no more."""
    # What a package prints goes to stderr: stdout carries answers alone.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    warnings.simplefilter("ignore")
    worker = Worker(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
    for line in sys.stdin:
        try:
            answer = worker.answer(json.loads(line))
        except Exception as error:  # noqa: BLE001 - whatever a package raises is an answer
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answer["peak_memory"] = peak_memory()
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
