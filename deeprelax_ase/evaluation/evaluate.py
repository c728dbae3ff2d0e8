"""Accuracy of weights on files of pairs, through the same door a user takes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from deeprelax_ase.datasets.augment import Pair, move_on_the_way
from deeprelax_ase.datasets.pair_file import collate, open_pairs
from deeprelax_ase.evaluation.metrics import (
    MEASURED,
    Errors,
    compute_errors,
    concatenate,
    input_errors,
)
from deeprelax_ase.evaluation.structure_match import matches
from deeprelax_ase.network.checkpoint import Weights
from deeprelax_ase.network.config import FUNCTIONALS
from deeprelax_ase.relaxation.calibration import COVERAGES
from deeprelax_ase.relaxation.relaxer import Relaxer
from deeprelax_ase.relaxation.result import RelaxResult
from deeprelax_ase.structures.crystal import Crystal, log_symmetric, relaxed_lengths
from deeprelax_ase.structures.read_structure import held_structure

_CHUNK = 64
_LAST_PART = 0.6
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class Evaluation:
    """What came of one file, crystal by crystal.

    Attributes:
        name: Of the file.
        sources: Where each pair is from.
        elements: Atomic numbers of each crystal.
        errors: Of the relaxed structures.
        dummy: Of the inputs themselves.
        matched: Whether the relaxed structure matches the target; None if that was not asked.
        dummy_matched: Whether the input does.
        moved: Whether a crystal was moved; one that was left as it was, refused or failed counts
            as its input.
        failed: Whether it was refused or failed.
        expected: Expected error of its bonds, Å.
        uncertainty: Mean Laplace scale of its bonds, Å (Eq. 24).
        distance_errors: Mean error of the lengths that were predicted before the solve, Å.
        expected_displacement: Mean over its atoms of their expected error, Å.
        expected_strain: Expected error of its strain.
        strain_errors: Frobenius norm of the error of its strain.
        bond_errors: Of each crystal, the errors of its predicted lengths of bonds, Å; those of the
            move also where it was not made.
        bond_scales: What was expected of each, Å.
        changes: Root mean square change of the lengths of its bonds that was predicted, Å.
        gained: Whether its predicted bonds are nearer to their targets than those of the input.
        signs: What its expected error is made of; nothing for a crystal without bonds.
        within: For each coverage, whether each bond lies within its interval.
    """

    name: str
    sources: tuple[str, ...]
    elements: tuple[frozenset[int], ...]
    errors: Errors
    dummy: Errors
    matched: Bool[np.ndarray, " crystals"] | None
    dummy_matched: Bool[np.ndarray, " crystals"] | None
    moved: Bool[np.ndarray, " crystals"]
    failed: Bool[np.ndarray, " crystals"]
    expected: Float[np.ndarray, " crystals"]
    uncertainty: Float[np.ndarray, " crystals"]
    distance_errors: Float[np.ndarray, " crystals"]
    expected_displacement: Float[np.ndarray, " crystals"]
    expected_strain: Float[np.ndarray, " crystals"]
    strain_errors: Float[np.ndarray, " crystals"]
    bond_errors: tuple[Float[np.ndarray, " _"], ...]
    bond_scales: tuple[Float[np.ndarray, " _"], ...]
    changes: Float[np.ndarray, " crystals"]
    gained: Bool[np.ndarray, " crystals"]
    signs: tuple[Float[np.ndarray, " _"], ...]
    within: dict[float, tuple[Bool[np.ndarray, " _"], ...]]

    def __len__(self) -> int:
        return len(self.expected)

    def of(self, chosen: Bool[np.ndarray, " crystals"], name: str) -> "Evaluation":
        """The part of it that is of some crystals."""
        places = np.flatnonzero(chosen)

        def part(value: object) -> object:
            if isinstance(value, np.ndarray):
                return value[places]
            if isinstance(value, Errors):
                return Errors(**{f.name: getattr(value, f.name)[places] for f in fields(value)})
            if isinstance(value, tuple):
                return tuple(value[place] for place in places)
            if isinstance(value, dict):
                return {key: part(entry) for key, entry in value.items()}
            return value

        parts = {f.name: part(getattr(self, f.name)) for f in fields(self)}
        return Evaluation(**{**parts, "name": name})  # type: ignore[arg-type]  # of equal types


def evaluate(
    path: Path,
    model: str | Path | Weights | Sequence[Weights] = "default",
    split: str = "val",
    limit: int | None = None,
    *,
    match: bool = False,
    strict: bool = False,
    name: str | None = None,
    nearly: bool = False,
    **options: Any,
) -> Evaluation:
    """Relax the inputs of a file of pairs and compare with their targets.

    Args:
        path: Parquet file, see `data.dataset`. Each pair is relaxed to its own functional.
        model: As for `Relaxer`.
        split: `train`, `val` or `test`.
        limit: At most so many crystals, evenly spaced.
        match: Also find out which structures match their target; some 50 ms a crystal.
        strict: Refuse a file with rows that cannot be used.
        name: Of the evaluation; the stem of the file if None.
        nearly: Start nearly at the target, from evenly spread points of the last two fifths of the
            way, in place of the inputs.
        **options: Further options by the names of `RelaxOptions`, such as `passes`.

    Raises:
        ValueError: Not a file of pairs, or nothing of that split.
    """
    file = open_pairs(path, split, strict=strict)
    if limit is not None and limit < 1:
        msg = f"limit is {limit}: it has to be positive"
        raise ValueError(msg)
    count = len(file) if limit is None else min(limit, len(file))
    rows = np.linspace(0, len(file) - 1, count).astype(int).tolist()
    known = {row: file[row] for row in rows}
    if nearly:
        known = {
            row: move_on_the_way(pair, _LAST_PART + (1 - _LAST_PART) * (place * _GOLDEN % 1))
            for place, (row, pair) in enumerate(known.items())
        }
    parts = []
    for functional in FUNCTIONALS:
        chosen = [row for row, pair in known.items() if pair.functional == functional]
        if not chosen:
            continue
        relaxer = Relaxer(model, functional, allow_unseen=True, **options)
        for chunk in _chunks(chosen):
            pairs = [known[row] for row in chunk]
            sources = tuple(file.source(row) for row in chunk)
            parts.append(_compare(relaxer, pairs, sources, match=match))
    return _join(parts, name or path.stem)


def _compare(
    relaxer: Relaxer, pairs: Sequence[Pair], sources: tuple[str, ...], *, match: bool
) -> Evaluation:
    results = list(relaxer.relax_many([held_structure(pair.crystal) for pair in pairs]))
    graph, targets = collate(pairs, MEASURED)
    moves = [_moves(result, pair) for result, pair in zip(results, pairs, strict=True)]
    displacements = torch.from_numpy(np.concatenate(moves))
    strains = torch.from_numpy(np.stack([result.strain for result in results]))
    deformations = torch.linalg.matrix_exp(strains)
    solved = list(zip(moves, deformations.numpy(), pairs, strict=True))
    true_lengths = [
        _lengths(r, pair.crystal, pair.displacements, pair.deformation)
        for r, pair in zip(results, pairs, strict=True)
    ]
    given = [
        _lengths(r, pair.crystal, np.zeros_like(pair.displacements), np.eye(3))
        for r, pair in zip(results, pairs, strict=True)
    ]
    bonds = [
        (np.zeros(0), None) if r.bonds is None else (np.abs(r.bonds.lengths - true), r.bonds)
        for r, true in zip(results, true_lengths, strict=True)
    ]
    distance_errors = [
        np.nan if r.bonds is None or not len(true) else np.abs(r.bonds.distances - true).mean()
        for r, true in zip(results, true_lengths, strict=True)
    ]
    true_strains = np.array([log_symmetric(pair.deformation) for pair in pairs])
    return Evaluation(
        name="",
        sources=sources,
        elements=tuple(frozenset(pair.crystal.numbers.tolist()) for pair in pairs),
        errors=compute_errors(graph, displacements, deformations, targets),
        dummy=input_errors(graph, targets),
        matched=np.array([matches(p, m, d) for m, d, p in solved]) if match else None,
        dummy_matched=np.array([matches(p) for p in pairs]) if match else None,
        moved=np.array([np.any(move != 0) for move in moves])
        | np.any(strains.numpy() != 0, axis=(1, 2)),
        failed=np.array([not result.is_sound for result in results]),
        expected=np.array([result.expected_error for result in results]),
        uncertainty=np.array([result.uncertainty for result in results]),
        distance_errors=np.array(distance_errors),
        expected_displacement=np.array(
            [r.site_errors.mean() if len(r.site_errors) else np.nan for r in results]
        ),
        expected_strain=np.array([r.strain_error for r in results]),
        strain_errors=np.linalg.norm(strains.numpy() - true_strains, axis=(1, 2)),
        changes=np.array(
            [
                np.sqrt(np.mean((r.bonds.lengths - old) ** 2)) if r.bonds and len(old) else 0.0
                for r, old in zip(results, given, strict=True)
            ]
        ),
        gained=np.array(
            [
                bool(len(old)) and errors.mean() < np.abs(old - true).mean()
                for (errors, _), old, true in zip(bonds, given, true_lengths, strict=True)
            ]
        ),
        signs=tuple(result.error_signs for result in results),
        bond_errors=tuple(errors for errors, _ in bonds),
        bond_scales=tuple(np.zeros(0) if b is None else b.uncertainties for _, b in bonds),
        within={
            share: tuple(
                np.zeros(0, dtype=bool) if b is None else errors <= b.intervals[share]
                for errors, b in bonds
            )
            for share in COVERAGES
        },
    )


def _join(parts: Sequence[Evaluation], name: str) -> Evaluation:
    """Several evaluations as one."""

    def joined(values: list[object]) -> object:
        first = values[0]
        if isinstance(first, Errors):
            return concatenate([value for value in values if isinstance(value, Errors)])
        if isinstance(first, np.ndarray):
            return np.concatenate([np.asarray(value) for value in values])
        if isinstance(first, tuple):
            return tuple(entry for value in values for entry in value)  # type: ignore[attr-defined]
        if isinstance(first, dict):
            return {key: joined([value[key] for value in values]) for key in first}  # type: ignore[index]
        return first

    merged = {f.name: joined([getattr(part, f.name) for part in parts]) for f in fields(Evaluation)}
    return Evaluation(**{**merged, "name": name})  # type: ignore[arg-type]  # of equal types


def _moves(result: RelaxResult[Any], pair: Pair) -> Float[np.ndarray, "atoms 3"]:
    return result.displacement if result.bonds is not None else np.zeros_like(pair.displacements)


def _lengths(
    result: RelaxResult[Any],
    crystal: Crystal,
    displacements: Float[np.ndarray, "atoms 3"],
    deformation: Float[np.ndarray, "3 3"],
) -> Float[np.ndarray, " bonds"]:
    """Length of the bonds of a result after a move of its input, Å; none if it has none."""
    if result.bonds is None:
        return np.zeros(0)
    pairs = result.bonds.edge_index, result.bonds.offsets
    return relaxed_lengths(crystal, *pairs, displacements, deformation)


def _chunks(rows: Sequence[int]) -> Iterator[Sequence[int]]:
    for first in range(0, len(rows), _CHUNK):
        yield rows[first : first + _CHUNK]
