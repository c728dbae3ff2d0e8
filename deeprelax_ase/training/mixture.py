"""Several files of pairs as one stream of batches to train on."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from deeprelax_ase.datasets.augment import Pair, disturb
from deeprelax_ase.datasets.config import SourceConfig
from deeprelax_ase.datasets.pair_file import PairFile, Targets, collate
from deeprelax_ase.network.graph import CrystalGraph
from deeprelax_ase.training.config import TrainConfig
from deeprelax_ase.training.own_outputs import FURTHER
from deeprelax_ase.training.process import leave_interrupts_to_the_parent

_POOL = 4096
_OWN = 7  # tells the random numbers of own outputs from those of the pairs

Reference = tuple[int, int]
"""Number of a file in the mixture, and a row of it."""


@dataclass(frozen=True)
class Batch:
    """What one process trains on in one step.

    Attributes:
        graph: Its crystals.
        targets: What they relax to.
        num_crystals: Of the step, on all processes together.
        is_filler: The step has fewer crystals than processes, and this is a copy of one.
        place: Epoch, and number within it.
        own_passes: So many passes of the network are made first, and what comes of them is
            trained on too. Then the graph has further pairs.
    """

    graph: CrystalGraph
    targets: Targets
    num_crystals: int
    place: tuple[int, int]
    is_filler: bool = False
    own_passes: int = 0

    def to(self, device: str) -> "Batch":
        """The batch in single precision on a device, whose memory is not waited for."""
        return self._changed(lambda part: part.to(torch.float32, device))

    def pin_memory(self) -> "Batch":
        """The batch in memory that a device can read by itself; torch asks for it by this name."""
        return self._changed(_pinned)

    def _changed(self, change: Callable[[Any], Any]) -> "Batch":
        """The batch with its graphs and targets changed."""
        return replace(self, graph=change(self.graph), targets=change(self.targets))

    @property
    def share(self) -> float:
        """Of the step's crystals, how many are here."""
        return 0.0 if self.is_filler else self.graph.num_crystals / self.num_crystals


class Mixture(torch.utils.data.Dataset[Batch]):
    """Several files as one endless, reproducible stream of batches.

    What batch `b` of epoch `e` holds, disturbance included, depends on the seed, `e` and `b`
    alone, so that a run can be resumed exactly. Processes that train together share every batch
    between them. As a torch dataset it has the batches of all epochs, by epoch and number; its
    length is that of the epoch drawn last.

    Args:
        config: The run.
        split: `train`, `val` or `test`.
        rank: Which of the processes this is.
        processes: How many train together.
    """

    def __init__(self, config: TrainConfig, split: str, rank: int = 0, processes: int = 1) -> None:
        self.config = config
        self.rank, self.processes = rank, processes
        self.files = [
            PairFile(source.path, split, strict=config.strict) for source in config.sources
        ]
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the batches of an epoch: of similar size within a batch, in random order."""
        self.epoch = epoch
        rng = np.random.default_rng((self.config.seed, epoch))
        references = [
            (number, row)
            for number, (source, file) in enumerate(
                zip(self.config.sources, self.files, strict=True)
            )
            for row in _passes(source, len(file), rng)
        ]
        order = rng.permutation(len(references))
        batches: list[list[Reference]] = []
        for first in range(0, len(order), _POOL):
            pool = [references[index] for index in order[first : first + _POOL]]
            batches += self._pack(sorted(pool, key=self._num_atoms))
        if not batches:
            msg = "an epoch holds not a single crystal: give larger passes, or other sources"
            raise ValueError(msg)
        self._batches = [batches[index] for index in rng.permutation(len(batches))]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, place: tuple[int, int]) -> Batch:
        epoch, number = place
        if epoch != self.epoch:
            self.set_epoch(epoch)
        references = self._batches[number]
        own = range(self.rank, len(references), self.processes)
        pairs = [self._pair(number, part) for part in own or (0,)]
        config = self.config
        rng = np.random.default_rng((config.seed, self.epoch, number, _OWN))
        passes = int(rng.integers(1, config.own_passes + 1))
        passes = passes if rng.random() < config.own_outputs else 0
        graph, targets = collate(pairs, config.network, FURTHER if passes else 0.0)
        batch = Batch(graph, targets, len(references), place, not own, passes)
        return batch.to("cpu")

    def _pair(self, number: int, part: int) -> Pair:
        """One pair of a batch, disturbed the same way on whatever process it is."""
        file_number, row = self._batches[number][part]
        file = self.files[file_number]
        noise = self.config.augmentation if file.is_pairs else self.config.denoising
        rng = np.random.default_rng((self.config.seed, self.epoch, number, part))
        pair = file[row] if noise is None else disturb(file[row], noise, rng)
        if rng.random() < self.config.unknown_functional:
            pair = replace(pair, functional="unknown")
        return pair

    def _pack(self, pool: list[Reference]) -> list[list[Reference]]:
        """Cut a sorted pool into batches of as many edges each, and at most what is allowed."""
        allowed = self.config.edges_per_batch / (self.config.network.max_neighbors + 2)
        in_all = sum(map(self._num_atoms, pool))
        equal = in_all / math.ceil(in_all / allowed)
        batches: list[list[Reference]] = []
        done = own = 0
        for reference in pool:
            size = self._num_atoms(reference)
            if done >= equal * len(batches) or own + size > allowed:
                batches.append([])
                own = 0
            batches[-1].append(reference)
            done, own = done + size, own + size
        return batches

    def _num_atoms(self, reference: Reference) -> int:
        return int(self.files[reference[0]].num_atoms[reference[1]])


def load_batches(
    mixture: Mixture, place: tuple[int, int], config: TrainConfig
) -> DataLoader[Batch]:
    """Endless batches, epoch after epoch, collated by worker processes if the run has some.

    Args:
        mixture: The files.
        place: Epoch and number of the first batch; past the end of an epoch, the next begins.
        config: The run.
    """
    return DataLoader(
        mixture,
        batch_size=None,
        sampler=_places(mixture, *place),
        num_workers=config.workers,
        prefetch_factor=4 if config.workers else None,
        pin_memory=config.device == "cuda",
        worker_init_fn=leave_interrupts_to_the_parent,
    )


def _places(mixture: Mixture, epoch: int, number: int) -> Iterator[tuple[int, int]]:
    """Epochs and numbers of all batches from one on."""
    while True:
        mixture.set_epoch(epoch)
        yield from ((epoch, following) for following in range(number, len(mixture)))
        epoch, number = epoch + 1, 0


def _pinned(holder: Any) -> Any:
    """A graph or targets in pinned memory."""
    tensors = {field.name: getattr(holder, field.name) for field in fields(holder)}
    return replace(holder, **{name: tensor.pin_memory() for name, tensor in tensors.items()})


def _passes(source: SourceConfig, count: int, rng: np.random.Generator) -> Iterator[int]:
    """Rows of a file for one epoch: whole passes, then a random part."""
    chosen = np.arange(count)
    if source.share < 1:
        kept = max(1, round(source.share * count))
        chosen = np.sort(np.random.default_rng(0).permutation(count)[:kept])
    whole, part = divmod(source.passes, 1.0)
    for _ in range(int(whole)):
        yield from chosen.tolist()
    yield from rng.permutation(chosen)[: round(part * len(chosen))].tolist()
