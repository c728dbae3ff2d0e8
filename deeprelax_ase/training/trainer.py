"""The training loop: AdamW, EMA, clipping, exact resume, one process or several."""

import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from deeprelax_ase.datasets.pair_file import Targets
from deeprelax_ase.network.checkpoint import load_weights, save_weights
from deeprelax_ase.network.graph import CrystalGraph
from deeprelax_ase.network.paegnn import PaEGNN
from deeprelax_ase.training.config import TrainConfig
from deeprelax_ase.training.distributed import ProcessGroup
from deeprelax_ase.training.loss import Loss, compute_loss
from deeprelax_ase.training.mixture import Batch, Mixture, load_batches
from deeprelax_ase.training.own_outputs import nearest, relaxed_inputs
from deeprelax_ase.training.process import check_device, keep_freed_memory, patient_interrupt
from deeprelax_ase.training.provenance import origin, provenance
from deeprelax_ase.training.run_folder import VALIDATIONS, RunFolder
from deeprelax_ase.training.schedule import Schedule
from deeprelax_ase.training.starting_weights import starting_network
from deeprelax_ase.training.validation import (
    Scores,
    open_validation,
    overall,
    score,
    through_the_solve,
)

_HOPELESS = 10
"""Steps in a row that were lost, because their gradients were not finite, and a run with them."""


_PROGRESS = ("step", "epoch", "batch", "crystals", "validated", "seconds", "best", "origin")


class Trainer:
    """One training run in one folder.

    `state.safetensors` is what a resumed run needs, `best.safetensors` and `last.safetensors` are
    averaged weights, `log.csv` and `validation.csv` the curves. Under `torchrun` the processes
    share every batch between them, and the run is the same as that of one process.

    Args:
        config: The run.
        folder: Where it is kept. A run found there goes on exactly where it stopped.

    Raises:
        ValueError: The folder holds a run of another configuration, or the weights to start
            from are of another network.
    """

    def __init__(self, config: TrainConfig, folder: Path) -> None:
        check_device(config.device)
        torch.set_num_threads(config.threads)
        keep_freed_memory()
        torch.manual_seed(config.seed)
        self.config = config
        self._folder = RunFolder(folder, config)
        self.processes = ProcessGroup.join(config.device)
        saved = self._folder.load_state()
        start = None
        if saved is None and config.start_from is not None:
            start = load_weights(config.start_from)
        self.network = starting_network(config, start).to(config.device)
        self.origin = None if start is None else origin(start)
        average = get_ema_multi_avg_fn(config.ema_decay)
        self.average = AveragedModel(self.network, multi_avg_fn=average)
        self.optimizer = torch.optim.AdamW(
            [p for p in self.network.parameters() if p.requires_grad],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.schedule = Schedule(config, self.optimizer)
        self.step = self.epoch = self.batch = self.crystals = self.validated = 0
        self._is_half = False  # whether a step is made in part
        self.seconds = 0.0
        self.best = -math.inf
        # Steps in a row that were lost, counted on the device: asking would make the host wait.
        self._lost = torch.zeros((), device=config.device)
        if saved is not None:
            self._resume(*saved)
        if config.device == "cuda":
            torch.set_float32_matmul_precision("high")
        if config.compile:
            self.network.compile(dynamic=True)
        self._forward = self.processes.wrap(self.network, uses_all=config.network.solver_steps > 0)

    @cached_property
    def _mixture(self) -> Mixture:
        """The training files, read once."""
        return Mixture(self.config, "train", self.processes.rank, self.processes.size)

    @cached_property
    def _validation(self) -> dict[str, Any]:
        """The validation files, read once."""
        paths = [source.path for source in self.config.sources]
        return open_validation(paths, strict=self.config.strict)

    def run(self) -> None:
        """Train to the last step, saving on the way; Ctrl-C ends the step, saves and stops.

        Raises:
            ValueError: A file cannot be used, or the run diverged.
        """
        # What is wrong with the files is said before anything is written.
        mixture, _ = self._mixture, self._validation
        own = self._folder.at_work(self.step, self.validated)
        with own if self.processes.is_first else nullcontext():
            self._run(mixture)

    def _run(self, mixture: Mixture) -> None:
        last_save = started = time.monotonic()
        before = self.seconds
        progress = tqdm(
            total=self.config.steps,
            initial=self.step,
            file=sys.stderr,
            unit="step",
            mininterval=30,
            disable=not self.processes.is_first,
        )
        with progress, patient_interrupt() as interrupted:
            try:
                if self._is_due and self.validated < self.step:  # it was cut short
                    self.validate()
                for batch in self._batches(mixture):
                    self._learn_from(batch)
                    progress.update()
                    self.seconds = before + time.monotonic() - started
                    if self._is_due:
                        self.validate()
                    if time.monotonic() - last_save > 60 * self.config.checkpoint_minutes:
                        self.save()
                        last_save = time.monotonic()
                    if interrupted.is_set():
                        raise KeyboardInterrupt
            finally:
                if not self._is_half:
                    self.save()

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do: all steps are made, and the last weights validated."""
        return self._is_over and self.validated >= self.step

    @property
    def _is_over(self) -> bool:
        return self.step >= self.config.steps

    @property
    def _is_due(self) -> bool:
        """Whether this step is one after which the weights are validated."""
        return self.step > 0 and (self.step % self.config.validate_every == 0 or self._is_over)

    def validate(self) -> dict[str, Scores]:
        """Improvement over the input on the validation split of every file of pairs, per cent."""
        self.save()  # weights without the state of their run would be in its way
        scores = self._score_and_save() if self.processes.is_first else {}
        self.schedule.report(self.processes.broadcast(overall(scores)))
        self.validated = self.step
        return scores

    def _score_and_save(self) -> dict[str, Scores]:
        network = self.average.module.eval()
        assert isinstance(network, PaEGNN)
        config = self.config
        relax = through_the_solve(network, config.network, config.device)
        scores = {
            name: score(relax, config.network, file, config.validation_limit)
            for name, file in self._validation.items()
        }
        rows = [
            {"step": self.step, "set": name, "minutes": round(self.seconds / 60, 1), **entry}
            for name, entry in scores.items()
        ]
        self._folder.append(VALIDATIONS, rows)
        provenance = self._provenance(scores)
        save_weights(self._folder.path / "last.safetensors", network, provenance)
        if not scores or overall(scores) > self.best:
            self.best = overall(scores)
            save_weights(self._folder.path / "best.safetensors", network, provenance)
        return scores

    def save(self) -> None:
        """Write everything that a resumed run needs."""
        if not self.processes.is_first:
            return
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for number, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{k}": v for k, v in state.items()}
        progress = {name: getattr(self, name) for name in _PROGRESS}
        metadata = {"progress": progress, "schedule": self.schedule.state()}
        self._folder.save_state(tensors, metadata)

    def _resume(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        self.network.load_state_dict(_within(tensors, "network."))
        self.average.load_state_dict(_within(tensors, "average."))
        optimizer = self.optimizer.state_dict()
        optimizer["state"] = {}
        for key, tensor in _within(tensors, "optimizer.").items():
            number, name = key.split(".", 1)
            optimizer["state"].setdefault(int(number), {})[name] = tensor
        self.optimizer.load_state_dict(optimizer)
        self.schedule.restore(metadata["schedule"])
        progress = metadata["progress"]
        for name, value in {"validated": self._folder.last_validated(), **progress}.items():
            setattr(self, name, value)

    def _batches(self, mixture: Mixture) -> Iterator[Batch]:
        if self._is_over:
            return
        for batch in load_batches(mixture, (self.epoch, self.batch), self.config):
            yield batch
            if self._is_over:
                return

    def _learn_from(self, batch: Batch) -> None:
        """One step on a batch, and for a share of them another on what the network makes of it."""
        config = self.config
        batch = batch.to(config.device)
        weight = batch.share * self.processes.size
        graph, targets = batch.graph, batch.targets
        if batch.own_passes:
            network = self.average.module.eval()
            own = relaxed_inputs(network, graph, targets, config.network, batch.own_passes)
            self._update(*own, weight)
            graph, targets = nearest(graph, targets, config.network)
        loss = self._update(graph, targets, weight)
        self.epoch, number = batch.place
        self.step, self.batch, self._is_half = self.step + 1, number + 1, False
        self.crystals += batch.num_crystals
        if self.step % config.log_every == 0:
            self._give_up_if_lost()
            terms = torch.stack([term.detach() for term in vars(loss).values()]) * batch.share
            self._log_loss(dict(zip(vars(loss), self.processes.sum(terms).tolist(), strict=True)))

    def _update(self, graph: CrystalGraph, targets: Targets, weight: float) -> Loss:
        self.schedule.apply(self.step)
        prediction = self._forward.train()(graph)
        steps = self.config.network.solver_steps
        loss = compute_loss(graph, prediction, targets, self.config.loss, steps)
        self.optimizer.zero_grad(set_to_none=True)
        # Gradients are averaged over the processes, each of which has its share of the crystals.
        (loss.total * weight).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        # The fused optimizer makes no step where this is not zero, and nobody has to wait for it.
        is_lost = (~norm.isfinite()).float()
        self.optimizer.found_inf = is_lost  # type: ignore[attr-defined]
        self._is_half = True
        self.optimizer.step()
        self.average.update_parameters(self.network)
        self._lost = (self._lost + 1) * is_lost
        return loss

    def _give_up_if_lost(self) -> None:
        """Raise where no step of late had finite gradients: the only wait for the device."""
        lost = int(self._lost.item())
        if lost >= _HOPELESS:
            msg = (
                f"the run diverged: {lost} steps before step {self.step:,} had gradients that "
                "are not finite; start again in another folder with a learning_rate below "
                f"{self.config.learning_rate:g}"
            )
            raise ValueError(msg)

    def _provenance(self, scores: Mapping[str, Any]) -> dict[str, Any]:
        return {
            **provenance(self.config, self._mixture.files, self.origin),
            "steps": self.step,
            "crystals": self.crystals,
            "hours": round(self.seconds / 3600, 2),
            "validation": scores,
        }

    def _log_loss(self, terms: Mapping[str, float]) -> None:
        if self.processes.is_first:
            row = {"step": self.step, "minutes": round(self.seconds / 60, 2)}
            row["crystals"] = self.crystals
            rounded = {name: round(term, 5) for name, term in terms.items()}
            self._folder.append("log.csv", [row | rounded])


def _within(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
