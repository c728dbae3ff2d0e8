"""Pairs whose targets are what several networks predict together, for one to learn from.

The inputs are training crystals with some of their species exchanged for similar ones, which nobody
has relaxed. The targets are the mean of the teachers' predictions, which is better than each of
them. Compositions of the validation and test splits are left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from pymatgen.core import Element
from tqdm import tqdm

from deeprelax_ase.datasets.augment import Pair
from deeprelax_ase.datasets.pair_file import EmptySplitError, PairFile, collate
from deeprelax_ase.datasets.substitution import LARGEST_MEAN_DISPLACEMENT
from deeprelax_ase.datasets.write_pairs import Row, reduced_composition
from deeprelax_ase.network.paegnn import PaEGNN
from deeprelax_ase.network.radial_basis import covalent_radii
from deeprelax_ase.structures.crystal import MAX_ATOMIC_NUMBER, exp_symmetric, log_symmetric
from deeprelax_ase.training.validation import through_the_solve

_CHUNK = 64
_METALS = range(3, 13)
"""Groups between which neighbours are similar."""
_LIKE_RADII = 0.25
"""Å. Elements whose covalent radii differ by this are chosen e times as seldom."""
_LARGEST_LOG_VOLUME = 0.9
"""Beyond it a prediction is not taken for a target."""


def compositions_held_back(paths: Sequence[Path]) -> set[str]:
    """Reduced compositions of the validation and test splits of files."""
    found = set()
    for path in paths:
        for split in ("val", "test"):
            try:
                file = PairFile(path, split)
            except EmptySplitError:
                continue
            found |= {reduced_composition(file[row].crystal.numbers) for row in range(len(file))}
    return found


def swaps_of(
    file: PairFile, count: int, exchanged: float, held_back: set[str], rng: np.random.Generator
) -> Iterator[Row]:
    """Inputs made of a file's crystals, changed unless nothing is exchanged; no targets yet."""
    similar = similar_elements(file.elements)
    for row in range(len(file)):
        pair = file[row]
        for _ in range(count):
            numbers = _swapped(pair.crystal.numbers, exchanged, similar, rng)
            is_changed = (numbers != pair.crystal.numbers).any()
            composition = reduced_composition(numbers)
            if composition not in held_back and (is_changed or not exchanged):
                crystal = replace(pair.crystal, numbers=numbers)
                name = f"{composition}<-{file.id(row)}"
                yield Row(name, "distilled", "train", replace(pair, crystal=crystal))


def similar_elements(elements: set[int]) -> dict[int, dict[int, float]]:
    """For each element how like it others are: of its group, and of metals the groups beside."""
    groups = {z: Element.from_Z(z).group for z in elements}
    radii = covalent_radii(MAX_ATOMIC_NUMBER + 1).tolist()

    def are_similar(one: int, other: int) -> bool:
        reach = 1 if one in _METALS and other in _METALS else 0
        return abs(one - other) <= reach

    return {
        z: {
            other: float(np.exp(-abs(radii[z] - radii[other]) / _LIKE_RADII))
            for other in sorted(groups)
            if are_similar(groups[z], groups[other])
        }
        for z in groups
    }


def _swapped(
    numbers: Int[np.ndarray, " atoms"],
    exchanged: float,
    similar: Mapping[int, Mapping[int, float]],
    rng: np.random.Generator,
) -> Int[np.ndarray, " atoms"]:
    """Some species exchanged; none becomes one that is there."""
    swapped = numbers.copy()
    taken = set(numbers.tolist())
    for z in np.unique(numbers).tolist():
        others = {other: weight for other, weight in similar[z].items() if other not in taken}
        if others and rng.random() < exchanged:
            weights = np.array(list(others.values()))
            new = int(rng.choice(list(others), p=weights / weights.sum()))
            swapped[numbers == z] = new
            taken.add(new)
    return swapped


def label(inputs: Sequence[Row], networks: Sequence[PaEGNN]) -> Iterator[Row]:
    """Pairs of inputs and the mean of what networks predict of them."""
    ordered = sorted(inputs, key=lambda entry: len(entry.pair.crystal))
    for first in tqdm(range(0, len(ordered), _CHUNK), mininterval=30):
        chunk = ordered[first : first + _CHUNK]
        pairs = _mean_of(networks, [entry.pair for entry in chunk])
        for entry, pair in zip(chunk, pairs, strict=True):
            length = np.linalg.norm(pair.displacements, axis=1).mean()
            log_volume = abs(np.log(np.linalg.det(pair.deformation)))
            if length < LARGEST_MEAN_DISPLACEMENT and log_volume < _LARGEST_LOG_VOLUME:
                yield replace(entry, pair=pair)


def _mean_of(networks: Sequence[PaEGNN], pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs with the mean displacements, and the deformations of the mean strains, as targets."""
    displacements, strains = [], []
    with torch.inference_mode():
        for network in networks:
            graph, _ = collate(pairs, network.config)
            moves, deformations = through_the_solve(network, network.config, "cpu")(graph)
            displacements.append(moves.numpy())
            strains.append(log_symmetric(deformations.numpy()))
    sizes = np.cumsum([len(pair.crystal) for pair in pairs])[:-1]
    return [
        replace(pair, displacements=moves, deformation=deformation)
        for pair, moves, deformation in zip(
            pairs,
            np.split(np.mean(displacements, axis=0), sizes),
            exp_symmetric(np.mean(strains, axis=0)),
            strict=True,
        )
    ]
