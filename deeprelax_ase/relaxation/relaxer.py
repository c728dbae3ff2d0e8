"""`Relaxer`: unrelaxed structures in, relaxed structures out, one or many.

The front-ends (optimizer, transformation, command line) know only this module.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols

from deeprelax_ase import solver
from deeprelax_ase.network.checkpoint import Weights, load_weights
from deeprelax_ase.network.config import EDGES_PER_BATCH, FUNCTIONALS, NetworkConfig
from deeprelax_ase.network.weights_registry import SPECIALIST, has_specialist, replicate_paths
from deeprelax_ase.relaxation.build_result import make_result
from deeprelax_ase.relaxation.inference import Predictor, load_replicates
from deeprelax_ase.relaxation.result import RelaxResult
from deeprelax_ase.structures.read_structure import StructureInput, read_structure
from deeprelax_ase.structures.vacuum import check_vacuum
from deeprelax_ase.structures.validation import StructureError


class Relaxer:
    """Relaxes crystals in one pass.

    Args:
        model: Name of shipped weights, a path to a weights file, or loaded `Weights`, or those of
            replicates. `default` takes `sheets` for sheets by themselves.
        functional: Exchange-correlation functional of the relaxation that is predicted.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        relax_cell: False keeps the cell and moves the atoms only.
        vacuum: `auto` never strains an axis with a gap of more than 8 Å in the atoms, nor any
            direction with one of 14 Å; `none` strains every periodic axis.
        keep_symmetry: Average the result over the space group of the input.
        allow_unseen: Go on with elements the weights never saw.
        method: How distances become a structure, see `solver.solve`.
        edges_per_batch: How much `relax_many` computes at once, in directed edges.
        ensemble: Mean of all replicates of the weights, and their disagreement as a part of the
            uncertainty (Eq. 21-24).
        always_move: Move a crystal also where the expected error is too large for the move. By
            default it is left as it was, and the result's message says so.

    Raises:
        ValueError: Unknown weights, functional, device or method; see the message.
    """

    def __init__(
        self,
        model: str | Path | Weights | Sequence[Weights] = "default",
        functional: str = "PBE",
        device: Any = "auto",
        *,
        relax_cell: bool = True,
        vacuum: str = "auto",
        keep_symmetry: bool = True,
        allow_unseen: bool = False,
        method: str = "joint",
        edges_per_batch: int = EDGES_PER_BATCH,
        ensemble: bool = False,
        always_move: bool = False,
    ) -> None:
        if functional not in FUNCTIONALS:
            msg = f"unknown functional {functional!r}: choose from {', '.join(FUNCTIONALS)}"
            raise ValueError(msg)
        if method not in solver.METHODS:
            msg = f"unknown method {method!r}: choose from {', '.join(solver.METHODS)}"
            raise ValueError(msg)
        check_vacuum(vacuum)
        if not isinstance(edges_per_batch, int | np.integer) or edges_per_batch < 1:
            msg = f"edges_per_batch is {edges_per_batch!r}: it has to be a positive whole number"
            raise ValueError(msg)
        self.device = _device(device)
        self.functional = functional
        self.relax_cell = relax_cell
        self.vacuum = vacuum
        self.keep_symmetry = keep_symmetry
        self.allow_unseen = allow_unseen
        self.method = method
        self.edges_per_batch = edges_per_batch
        self.always_move = always_move
        _keep_freed_memory()
        self._ensemble = ensemble
        self._has_specialist = has_specialist(model)
        self._general = self._load(model, ensemble)
        self.weights = self._general.weights

    @property
    def config(self) -> NetworkConfig:
        """Configuration of the network for bulk crystals."""
        return self._general.config

    def _load(self, model: str | Path | Weights | Sequence[Weights], ensemble: bool) -> Predictor:
        if isinstance(model, Weights):
            if ensemble:
                msg = "an ensemble needs replicates: give them as a list, or a name or a path"
                raise ValueError(msg)
            replicates: Sequence[Weights] = [model]
        elif isinstance(model, str | Path):
            replicates = load_replicates(model) if ensemble else [load_weights(model)]
        elif model and isinstance(model, list | tuple) and isinstance(model[0], Weights):
            replicates = model
        else:
            msg = (
                f"model is {model!r}: give a name, a path, `Weights`, or a list of `Weights` that "
                "is not empty"
            )
            raise ValueError(msg)
        return Predictor(replicates, self.device, self.method)

    @cached_property
    def _specialist(self) -> Predictor:
        """The networks for sheets, loaded when the first one comes."""
        return self._load(SPECIALIST, self._ensemble and len(replicate_paths(SPECIALIST)) > 1)

    def _predictor(self, entry: StructureInput) -> Predictor:
        """The networks for an input: a specialist for sheets, if there is one."""
        return self._specialist if self._has_specialist and entry.is_sheet else self._general

    def relax(self, structure: Any, *, relax_cell: bool | None = None) -> RelaxResult:
        """Relax one ASE Atoms or pymatgen Structure.

        Args:
            structure: Stays as it is.
            relax_cell: Overrides what the relaxer was made with.

        Raises:
            ValueError: It cannot be read as a crystal, or holds elements the weights never saw.
        """
        relax_cell = self.relax_cell if relax_cell is None else relax_cell
        return self._relax_batch([self._read(structure)], relax_cell)[0]

    def relax_many(self, structures: Iterable[Any]) -> Iterator[RelaxResult]:
        """Relax any number of structures, lazily, in order, in batches packed by edge count.

        A structure that cannot be read gives a result with status `failed`; the rest go on.
        """
        waiting: list[StructureInput | RelaxResult] = []
        edges = 0
        for structure in structures:
            try:
                entry: StructureInput | RelaxResult = self._read(structure)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the rest go on
                entry = self._failed(structure, error)
            size = self._estimated_edges(entry)
            if waiting and edges + size > self.edges_per_batch:
                yield from self._flush(waiting)
                waiting, edges = [], 0
            waiting.append(entry)
            edges += size
        yield from self._flush(waiting)

    def _flush(self, waiting: Sequence[StructureInput | RelaxResult]) -> Iterator[RelaxResult]:
        inputs = [entry for entry in waiting if isinstance(entry, StructureInput)]
        relaxed = iter(self._relax_or_fail(inputs))
        for entry in waiting:
            yield next(relaxed) if isinstance(entry, StructureInput) else entry

    def _relax_or_fail(self, inputs: Sequence[StructureInput]) -> list[RelaxResult]:
        """Results of a batch; where it raises, those of its halves, down to the one at fault."""
        if not inputs:
            return []
        try:
            return self._relax_batch(inputs, self.relax_cell)
        except Exception as error:  # noqa: BLE001 - constraints and calculators are users' code
            if len(inputs) == 1:
                return [self._failed(inputs[0].source, error)]
        half = len(inputs) // 2
        return self._relax_or_fail(inputs[:half]) + self._relax_or_fail(inputs[half:])

    def _estimated_edges(self, entry: StructureInput | RelaxResult) -> int:
        if isinstance(entry, RelaxResult):
            return 0
        return len(entry.crystal) * (self.config.max_neighbors + 2)

    def _read(self, structure: Any) -> StructureInput:
        read = read_structure(structure, self.vacuum, self.config.reach)
        predictor = self._predictor(read)
        unseen = set(read.crystal.numbers.tolist()) - predictor.seen if predictor.seen else set()
        if unseen and not self.allow_unseen:
            names = ", ".join(chemical_symbols[z] for z in sorted(unseen))
            msg = (
                f"the weights {predictor.weights.name!r} never saw {names}: "
                "pass allow_unseen=True to go on all the same, or train on it"
            )
            raise StructureError(msg)
        return replace(read, notes=read.notes + predictor.notes(self.functional))

    def _relax_batch(self, inputs: Sequence[StructureInput], relax_cell: bool) -> list[RelaxResult]:
        predictors = [self._predictor(entry) for entry in inputs]
        results: dict[int, RelaxResult] = {}
        for predictor in dict.fromkeys(predictors):
            places = [k for k, one in enumerate(predictors) if one is predictor]
            started = time.perf_counter()
            parts = predictor.predict(
                [inputs[k].crystal for k in places], self.functional, relax_cell=relax_cell
            )
            each = time.perf_counter() - started
            each /= sum(len(inputs[k].crystal) for k in places)
            for place, part in zip(places, parts, strict=True):
                results[place] = make_result(
                    inputs[place],
                    part,
                    predictor,
                    relax_cell=relax_cell,
                    keep_symmetry=self.keep_symmetry,
                    always_move=self.always_move,
                    seconds=each * len(inputs[place].crystal),
                )
        return [results[place] for place in range(len(inputs))]

    def _failed(self, structure: Any, error: Exception) -> RelaxResult:
        is_ours = isinstance(error, ValueError)
        message = str(error) if is_ours else f"{type(error).__name__}: {error}"
        return RelaxResult(
            structure,
            "failed",
            message,
            strain=np.zeros((3, 3)),
            displacement=np.zeros((0, 3)),
            formula="",
            num_atoms=len(structure) if hasattr(structure, "__len__") else 0,
            expected_error=float("nan"),
            uncertainty=float("nan"),
            site_errors=np.zeros(0),
            strain_error=float("nan"),
            bonds=None,
            seconds=0.0,
            weights=self.weights,
        )


@lru_cache(maxsize=8)
def shared_relaxer(
    model: str | Path = "default",
    functional: str = "PBE",
    device: str = "auto",
    relax_cell: bool = True,
    vacuum: str = "auto",
    allow_unseen: bool = False,
    ensemble: bool = False,
    always_move: bool = False,
) -> Relaxer:
    """A relaxer with these options, loaded once in a process."""
    return Relaxer(
        model,
        functional,
        device,
        relax_cell=relax_cell,
        vacuum=vacuum,
        allow_unseen=allow_unseen,
        ensemble=ensemble,
        always_move=always_move,
    )


def _keep_freed_memory() -> None:
    """Let the C library keep what it frees: else it asks the kernel for every layer anew.

    Having once freed a block of 31 MiB, glibc no longer returns smaller ones (M_MMAP_THRESHOLD in
    mallopt(3)). Without it a batch takes half as long again.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


def _device(name: Any) -> torch.device:
    choices = "'auto', 'cpu', 'cuda' or 'cuda:N'"
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        msg = f"unknown device {name!r}: choose {choices}"
        raise ValueError(msg) from error
    if device.type not in ("cpu", "cuda"):
        msg = f"unknown device {name!r}: choose {choices}"
        raise ValueError(msg)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        msg = f"no device {name!r}: torch sees {count} CUDA devices; choose 'auto' or 'cpu'"
        raise ValueError(msg)
    return device
