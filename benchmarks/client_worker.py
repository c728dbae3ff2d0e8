"""Runs one example script on given crystals, in the environment of its client.

Called with the script, options for it (JSON) and the names of optimizers; reads crystals as JSON
lines from stdin (name, numbers, cell, positions) and writes an answer for each and each optimizer
to stdout.
"""

import contextlib
import json
import sys
import time
import warnings
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import ase.optimize
from ase import Atoms
from chgnet.model.dynamics import CHGNetCalculator

import deeprelax_ase

_calls = 0


def main() -> None:
    """Answer until the input ends."""
    script, options, names = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:]
    answers = sys.stdout
    real = CHGNetCalculator.calculate

    def counted(self: Any, *args: Any, **kwargs: Any) -> None:
        global _calls  # noqa: PLW0603
        _calls += 1
        return real(self, *args, **kwargs)

    CHGNetCalculator.calculate = counted
    warnings.simplefilter("ignore")
    spec = spec_from_file_location(script.stem, script)
    assert spec is not None
    assert spec.loader is not None
    example = module_from_spec(spec)
    spec.loader.exec_module(example)
    deeprelax_ase.Relaxer()  # its libraries are loaded before the clock runs
    for line in sys.stdin:
        crystal = json.loads(line)
        for name in names:
            with contextlib.redirect_stdout(sys.stderr):
                answer = _relax(example, crystal, name, options)
            print(json.dumps(answer), file=answers, flush=True)


def _relax(
    example: Any, crystal: dict[str, Any], name: str, options: dict[str, Any]
) -> dict[str, Any]:
    """Energy (eV/atom), calls of the calculator, seconds; or the error."""
    global _calls  # noqa: PLW0603
    atoms = Atoms(
        crystal["numbers"], positions=crystal["positions"], cell=crystal["cell"], pbc=True
    )
    optimizer = getattr(deeprelax_ase, name, None) or getattr(ase.optimize, name)
    answer = {"name": crystal["name"], "optimizer": name}
    _calls = 0
    started = time.perf_counter()
    try:
        energy = example.relax(atoms, optimizer, **options) / len(atoms)
    except Exception as error:  # noqa: BLE001 - whatever a client raises is its answer
        return {**answer, "error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    return {
        **answer,
        "energy": energy,
        "calls": _calls,
        "seconds": time.perf_counter() - started,
    }


if __name__ == "__main__":
    main()
