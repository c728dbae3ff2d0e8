"""What our own time and memory go to."""

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from ase import Atoms
from ase.io import write

from benchmarks.worker import peak_memory
from deeprelax_ase import Relaxer, solver
from deeprelax_ase.files.read_files import read_structures
from deeprelax_ase.files.write_files import write_structures
from deeprelax_ase.relaxation import batches, small_crystals
from deeprelax_ase.relaxation import relaxer as relaxer_module
from deeprelax_ase.structures import structure_input


def time_parts(crystals: Sequence[Atoms], *, single: bool) -> dict[str, float]:
    """Seconds a crystal that each part of a relaxation takes, from file to file.

    Args:
        crystals: What is relaxed.
        single: One by one, or in batches.

    Returns:
        `files` (reading and writing POSCARs), `checks` of the input with the search for pairs,
        `graph`, `network` and `solve` or both in one, `symmetry`, `rest` and `all`.
    """
    relaxer = Relaxer()
    totals: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.vasp" for number in range(len(crystals))]
        for path, atoms in zip(paths, crystals, strict=True):
            write(path, atoms, format="vasp")
        list(relaxer.relax_many(crystals))
        started = time.perf_counter()
        with _timed(totals):
            with _counted(totals, "files"):
                files = [read_structures(path) for path in paths]
            structures = [file.structures[0] for file in files]
            if single:
                results = [relaxer.relax(structure) for structure in structures]
            else:
                results = list(relaxer.relax_many(structures))
            with _counted(totals, "files"):
                for file, result in zip(files, results, strict=True):
                    out = file.path.with_name(f"relaxed-{file.path.name}")
                    write_structures(file, [result.structure], out)
        everything = time.perf_counter() - started
    parts = {name: total / len(crystals) for name, total in totals.items()}
    rest = everything / len(crystals) - sum(parts.values())
    return {**parts, "rest": rest, "all": everything / len(crystals)}


@contextmanager
def _timed(totals: dict[str, float]) -> Iterator[None]:
    """Add the time that the parts of a relaxation take to the totals."""
    with ExitStack() as stack:
        for part, owner, name in (
            ("checks", relaxer_module, "read_structure"),
            ("graph", batches, "build_graph"),
            ("graph", small_crystals.SmallCrystals, "of"),
            ("network and solve in one", small_crystals.CompiledNetwork, "__call__"),
            ("network", batches.Batches, "run_network"),
            ("solve", solver, "solve"),
            ("symmetry", structure_input, "find_space_group"),
        ):
            wrapped = _wrap(getattr(owner, name), totals, part)
            stack.enter_context(patch.object(owner, name, wrapped))
        yield


def _wrap(function: Callable[..., Any], totals: dict[str, float], part: str) -> Callable[..., Any]:
    def wrapped(*arguments: Any, **options: Any) -> Any:
        with _counted(totals, part):
            return function(*arguments, **options)

    return wrapped


@contextmanager
def _counted(totals: dict[str, float], part: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    totals[part] = totals.get(part, 0.0) + time.perf_counter() - started


def peak_of(crystals: Sequence[Atoms]) -> int:
    """Most memory (bytes) that a fresh process needs to relax some crystals."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_own_peak, (crystals,))


def _own_peak(crystals: Sequence[Atoms]) -> int:
    torch.set_num_threads(1)
    list(Relaxer().relax_many(crystals))
    return peak_memory()
