"""Relax crystals: unrelaxed structures in, relaxed structures out, one or many.

The front-ends (optimizer, transformation, command line) know only this module.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from deeprelax_ase.network.checkpoint import Weights, load_weights
from deeprelax_ase.network.config import NetworkConfig
from deeprelax_ase.network.weights_registry import (
    SPECIALIST,
    file_states,
    has_specialist,
    replicate_paths,
)
from deeprelax_ase.relaxation.build_result import build_result, least_gain_of
from deeprelax_ase.relaxation.foreign import check_elements, foreign_notes
from deeprelax_ase.relaxation.inference import (
    ON_PROCESSOR,
    WORTH_THREADS,
    Predictor,
    load_replicates,
)
from deeprelax_ase.relaxation.one_thread import one_thread
from deeprelax_ase.relaxation.options import RelaxOptions, options_from
from deeprelax_ase.relaxation.passes import run_passes
from deeprelax_ase.relaxation.result import RelaxResult, S
from deeprelax_ase.structures.adapter import KINDS
from deeprelax_ase.structures.held import Held
from deeprelax_ase.structures.mxene import is_mxene
from deeprelax_ase.structures.notes import Note
from deeprelax_ase.structures.read_structure import (
    HeldStructure,
    copy_of,
    plain_structure,
    read_structure,
)
from deeprelax_ase.structures.structure_input import StructureInput
from deeprelax_ase.structures.symmetry import symmetry_notes


class Relaxer:
    """Relaxes crystals in one pass.

    Args:
        model: Name of shipped weights, a path to a weights file, loaded `Weights`, or those of
            replicates. `default` takes `sheets` for sheets like those that they know.
        functional: Exchange-correlation functional of the relaxation that is predicted.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        options: A `RelaxOptions` to start from.
        **changes: Further options, by the names of `RelaxOptions`: `hold`, `relax_cell`, `vacuum`,
            `keep_symmetry`, `allow_unseen`, `always_move`, `ensemble`, `method`, ...

    Raises:
        ValueError: Unknown weights, or an unknown option or value; see the message.
    """

    def __init__(
        self,
        model: Any = None,
        functional: str | None = None,
        device: Any = None,
        *,
        options: RelaxOptions | None = None,
        **changes: Any,
    ) -> None:
        given = {"model": model, "functional": functional, "device": device}
        changes |= {name: value for name, value in given.items() if value is not None}
        self.options = options_from(options, changes)
        self._has_specialist = has_specialist(self.options.model)
        self._general = self._load(self.options.model, self.options.ensemble)
        self.weights = self._general.weights
        if self.options.device not in ON_PROCESSOR:
            _ = self.device  # a wrong one is told of now

    @property
    def device(self) -> Any:
        """The `torch.device` that batches and large crystals are computed on."""
        return self._general.device

    @property
    def functional(self) -> str:
        """The functional that is relaxed to."""
        return self.options.functional

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
        return Predictor(replicates, self.options.device, self.options.method)

    @cached_property
    def _specialist(self) -> Predictor:
        """The networks for sheets, loaded when the first one comes."""
        return self._load(
            SPECIALIST, self.options.ensemble and len(replicate_paths(SPECIALIST)) > 1
        )

    def _predictor(self, entry: StructureInput) -> Predictor:
        """The networks for an input: a specialist for free sheets like those that it knows.

        It was never told of anything that is held, and saw fewer elements. With PBE it saw MXenes
        alone, and the area of graphene came out 6 % too large; with other functionals, areas of
        textbook sheets came out up to 7 % too large.
        """
        if not self._has_specialist or not entry.is_sheet:
            return self._general
        if entry.crystal.fixed is not None or entry.crystal.held_strains()[0]:
            return self._general
        functional = entry.functional or self.options.functional
        if functional != "PBE" or not is_mxene(entry.crystal, self.config.reach):
            return self._general
        elements, seen = set(entry.crystal.numbers.tolist()), self._specialist.seen
        only_general = elements & self._general.seen - seen if seen else set()
        return self._general if only_general else self._specialist

    def relax(
        self, structure: S, *, relax_cell: bool | None = None, held: Held | None = None
    ) -> RelaxResult[S]:
        """Relax one ASE Atoms or pymatgen Structure.

        Args:
            structure: Stays as it is.
            relax_cell: Overrides the option of that name; True also frees a slab with fixed atoms.
            held: What must stay as it is, in place of what the options say.

        Raises:
            ValueError: It cannot be read as a crystal, or holds elements the weights never saw.
        """
        if held is None:
            changes = {} if relax_cell is None else {"relax_cell": relax_cell}
            is_free = Held.of("nothing" if relax_cell else None)
            held = self.options.changed(**changes).held | is_free
        return self._relax_batch([self._read(structure, held)])[0]

    def relax_many(self, structures: Iterable[S]) -> Iterator[RelaxResult[S]]:
        """Relax any number of structures, lazily, in order, in batches packed by edge count.

        What comes from an iterator is copied, as it may be changed before its batch is full. A
        structure that cannot be read gives a result with status `failed`; the rest go on.

        Raises:
            ValueError: It is one structure, and not several.
        """
        if isinstance(structures, (HeldStructure, *KINDS)):
            msg = (
                f"relax_many takes several structures, and this is one {type(structures).__name__}:"
                " put it into a list, or call relax"
            )
            raise ValueError(msg)
        return self._relax_lazily(structures)

    def _relax_lazily(self, structures: Iterable[Any]) -> Iterator[RelaxResult[Any]]:
        waiting: list[StructureInput | RelaxResult[Any]] = []
        edges = 0
        is_passing = not isinstance(structures, Sequence)
        source = iter(structures)
        while True:
            try:
                structure = next(source)
            except StopIteration:
                break
            except BaseException:
                yield from self._flush(waiting)  # what came before is not lost
                raise
            try:
                mine = copy_of(structure) if is_passing else structure
                entry: StructureInput | RelaxResult[Any] = self._read(mine, self.options.held)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the rest go on
                entry = self._failed(structure, error)
            size = self._estimated_edges(entry)
            if waiting and edges + size > self.options.edges_per_batch:
                yield from self._flush(waiting)
                waiting, edges = [], 0
            waiting.append(entry)
            edges += size
        yield from self._flush(waiting)

    def _flush(
        self, waiting: Sequence[StructureInput | RelaxResult[Any]]
    ) -> Iterator[RelaxResult[Any]]:
        inputs = [entry for entry in waiting if isinstance(entry, StructureInput)]
        relaxed = iter(self._relax_or_fail(inputs))
        for entry in waiting:
            yield next(relaxed) if isinstance(entry, StructureInput) else entry

    def _relax_or_fail(self, inputs: Sequence[StructureInput]) -> list[RelaxResult[Any]]:
        """Results of a batch; where it raises, those of its halves, down to the one at fault."""
        if not inputs:
            return []
        try:
            return self._relax_batch(inputs)
        except Exception as error:  # noqa: BLE001 - constraints and calculators are users' code
            if len(inputs) == 1:
                return [self._failed(inputs[0].source, error)]
        half = len(inputs) // 2
        return self._relax_or_fail(inputs[:half]) + self._relax_or_fail(inputs[half:])

    def _estimated_edges(self, entry: StructureInput | RelaxResult[Any]) -> int:
        # What failed waits as well, and a source can give nothing else.
        count = 1 if isinstance(entry, RelaxResult) else len(entry.crystal)
        return count * (self.config.max_neighbors + 2)

    def _read(self, structure: Any, held: Held) -> StructureInput:
        read = read_structure(structure, self.options.vacuum, self.config.reach, held)
        read = read.without_anchor()
        predictor = self._predictor(read)
        if not self.options.allow_unseen:
            check_elements(read.crystal, predictor)
        functional = read.functional or self.options.functional
        more = symmetry_notes(read.crystal) if self.options.keep_symmetry else ()
        more += foreign_notes(read.crystal, functional, predictor)
        return replace(read, notes=read.notes + more)

    def _relax_batch(self, inputs: Sequence[StructureInput]) -> list[RelaxResult[Any]]:
        is_small = max(len(entry.crystal) for entry in inputs) < WORTH_THREADS
        with one_thread() if is_small else nullcontext():
            return self._relax_together(inputs)

    def _relax_together(self, inputs: Sequence[StructureInput]) -> list[RelaxResult[Any]]:
        predictors = [self._predictor(entry) for entry in inputs]
        results: dict[int, RelaxResult[Any]] = {}
        for predictor in dict.fromkeys(predictors):
            places = [k for k, one in enumerate(predictors) if one is predictor]
            entries = [inputs[k] for k in places]
            gains = [least_gain_of(e, self.options, predictor.calibration) for e in entries]
            started = time.perf_counter()
            relaxations = run_passes(
                entries,
                [entry.functional or self.options.functional for entry in entries],
                predictor,
                self.options.passes,
                keep_symmetry=self.options.keep_symmetry,
                least_gains=gains,
            )
            each = (time.perf_counter() - started) / sum(len(e.crystal) for e in entries)
            for place, entry, relaxation in zip(places, entries, relaxations, strict=True):
                seconds = each * len(entry.crystal)
                results[place] = build_result(entry, relaxation, predictor, self.options, seconds)
        return [results[place] for place in range(len(inputs))]

    def _failed(self, structure: Any, error: Exception) -> RelaxResult[Any]:
        text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        structure = plain_structure(structure)
        return RelaxResult(
            structure,
            "failed",
            (Note("unreadable", text),),
            strain=np.zeros((3, 3)),
            displacement=np.zeros((0, 3)),
            formula="",
            num_atoms=len(structure) if isinstance(structure, KINDS) else 0,  # type: ignore[arg-type]
            functional=self.functional,
            passes=0,
            expected_error=float("nan"),
            gain_probability=float("nan"),
            expected_gain=float("nan"),
            uncertainty=float("nan"),
            error_signs=np.zeros(0),
            site_errors=np.zeros(0),
            strain_error=float("nan"),
            bonds=None,
            seconds=0.0,
            weights=self.weights,
        )


def shared_relaxer(options: RelaxOptions) -> Relaxer:
    """A relaxer with these options, loaded once in a process, and again where a file changed."""
    return _relaxer_of(options, file_states(options.model))


@lru_cache(maxsize=8)
def _relaxer_of(options: RelaxOptions, _states: tuple[tuple[int, int], ...]) -> Relaxer:
    return Relaxer(options=options)
