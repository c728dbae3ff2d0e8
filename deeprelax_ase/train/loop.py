"""The training loop: AdamW, EMA, warm-up and cosine decay, clipping, exact resume."""

import csv
import ctypes
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

from deeprelax_ase import edg
from deeprelax_ase.checkpoint import load_tensors, save_tensors, save_weights
from deeprelax_ase.config import FUNCTIONALS, TrainConfig
from deeprelax_ase.data.dataset import Mixture, PairFile, Targets, collate
from deeprelax_ase.graph import CrystalGraph
from deeprelax_ase.metrics import compute_errors, concatenate, improvement, input_errors
from deeprelax_ase.model import PaEGNN
from deeprelax_ase.train.loss import Loss, compute_loss

_VALIDATION_CHUNK = 32


class Trainer:
    """One training run in one folder.

    `state.safetensors` is what a resumed run needs, `best.safetensors` and `last.safetensors` are
    averaged weights, `log.csv` and `validation.csv` the curves.

    Args:
        config: The run.
        folder: Where it is kept. A run found there goes on exactly where it stopped.

    Raises:
        ValueError: The folder holds a run of another configuration.
    """

    def __init__(self, config: TrainConfig, folder: Path) -> None:
        torch.set_num_threads(config.threads)
        _keep_freed_memory()
        torch.manual_seed(config.seed)
        self.config = config
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.network = PaEGNN(config.network).to(config.device)
        average = get_ema_multi_avg_fn(config.ema_decay)
        self.average = AveragedModel(self.network, multi_avg_fn=average)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.step = self.epoch = self.batch = self.crystals = 0
        self.seconds = 0.0
        self.best = -math.inf
        self._resume()
        if config.compile:
            self.network.compile(dynamic=True)

    @cached_property
    def _mixture(self) -> Mixture:
        """The training files, read once."""
        return Mixture(self.config, "train")

    def run(self) -> None:
        """Train to the last step, saving on the way; Ctrl-C saves and stops."""
        last_save = started = time.monotonic()
        before = self.seconds
        progress = tqdm(
            total=self.config.steps, initial=self.step, file=sys.stderr, unit="step", mininterval=30
        )
        try:
            for graph, targets in self._batches(self._mixture):
                loss = self._update(graph, targets)
                progress.update()
                now = time.monotonic()
                self.seconds = before + now - started
                if self.step % 100 == 0:
                    self._log_loss(loss)
                if self.step % self.config.validate_every == 0 or self.step == self.config.steps:
                    self.validate()
                if now - last_save > 60 * self.config.checkpoint_minutes:
                    self.save()
                    last_save = time.monotonic()
        finally:
            progress.close()
            self.save()

    def validate(self) -> dict[str, dict[str, int | float]]:
        """Improvement over the input on the validation split of every file of pairs, per cent."""
        network = self.average.module.eval()
        assert isinstance(network, PaEGNN)
        scores = {}
        for source in self.config.sources:
            try:
                file = PairFile(source.path, "val")
            except ValueError:
                continue
            if file.is_pairs:
                scores[source.path.stem] = self._score(network, file)
        # By the number of crystals: a set of a dozen does not decide.
        mean = sum(
            s["crystals"] * (s["displacement"] + s["lattice"] + s["volume"])
            for s in scores.values()
        ) / max(sum(s["crystals"] for s in scores.values()), 1)
        rows = [
            {"step": self.step, "set": name, "minutes": round(self.seconds / 60, 1), **score}
            for name, score in scores.items()
        ]
        _append(self.folder / "validation.csv", rows)
        provenance = self._provenance(scores)
        save_weights(self.folder / "last.safetensors", network, provenance)
        if mean > self.best:
            self.best = mean
            save_weights(self.folder / "best.safetensors", network, provenance)
        return scores

    def save(self) -> None:
        """Write everything that a resumed run needs."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for number, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{k}": v for k, v in state.items()}
        progress = {
            name: getattr(self, name)
            for name in ("step", "epoch", "batch", "crystals", "seconds", "best")
        }
        metadata = {"config": self.config.model_dump(mode="json"), "progress": progress}
        save_tensors(self.folder / "state.safetensors", tensors, metadata)

    def _resume(self) -> None:
        path = self.folder / "state.safetensors"
        if not path.exists():
            config = json.dumps(self.config.model_dump(mode="json"), indent=2)
            (self.folder / "config.json").write_text(config + "\n")
            return
        tensors, metadata = load_tensors(path)
        if metadata["config"] != self.config.model_dump(mode="json"):
            msg = (
                f"{self.folder} holds a run of another configuration; "
                "name another folder or give the configuration in its config.json"
            )
            raise ValueError(msg)
        self.network.load_state_dict(_within(tensors, "network."))
        self.average.load_state_dict(_within(tensors, "average."))
        optimizer = self.optimizer.state_dict()
        optimizer["state"] = {}
        for key, tensor in _within(tensors, "optimizer.").items():
            number, name = key.split(".", 1)
            optimizer["state"].setdefault(int(number), {})[name] = tensor
        self.optimizer.load_state_dict(optimizer)
        for name, value in metadata["progress"].items():
            setattr(self, name, value)

    def _batches(self, mixture: Mixture) -> Iterator[tuple[CrystalGraph, Targets]]:
        while self.step < self.config.steps:
            mixture.set_epoch(self.epoch)
            loader = DataLoader(
                mixture,
                batch_size=None,
                sampler=range(self.batch, len(mixture)),
                num_workers=self.config.workers,
                prefetch_factor=4 if self.config.workers else None,
            )
            for graph, targets in loader:
                yield graph, targets
                if self.step >= self.config.steps:
                    return
            self.epoch, self.batch = self.epoch + 1, 0

    def _update(self, graph: CrystalGraph, targets: Targets) -> Loss:
        graph = graph.to(torch.float32, self.config.device)
        targets = targets.to(torch.float32, self.config.device)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.step)
        prediction = self.network.train()(graph)
        steps = self.config.network.solver_steps
        loss = compute_loss(graph, prediction, targets, self.config.loss, steps)
        self.optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        if bool(norm.isfinite()):
            self.optimizer.step()
            self.average.update_parameters(self.network)
        self.step, self.batch = self.step + 1, self.batch + 1
        self.crystals += graph.num_crystals
        return loss

    def _score(self, network: torch.nn.Module, file: PairFile) -> dict[str, int | float]:
        """On evenly spaced crystals of a validation split."""
        count = min(len(file), self.config.validation_limit)
        rows = torch.linspace(0, len(file) - 1, count).long().tolist()
        rows.sort(key=lambda row: file.num_atoms[row])
        errors, dummies = [], []
        for first in range(0, len(rows), _VALIDATION_CHUNK):
            pairs = [file[row] for row in rows[first : first + _VALIDATION_CHUNK]]
            graph, targets = collate(pairs, self.config.network)
            with torch.no_grad():
                prediction = network(graph.to(torch.float32, self.config.device)).to(
                    torch.float64, "cpu"
                )
            steps = self.config.network.solver_steps
            solution = edg.solve(graph, prediction, max_steps=steps)
            errors.append(
                compute_errors(graph, solution.displacements, solution.deformations, targets)
            )
            dummies.append(input_errors(graph, targets))
        result = concatenate(errors)
        scores = improvement(result, concatenate(dummies))
        own = {"crystals": count, "mean_displacement": float(result.displacement.mean())}
        return own | scores

    def _provenance(self, scores: Mapping[str, Any]) -> dict[str, Any]:
        files = self._mixture.files
        elements = sorted({int(z) for file in files for z in file.elements})
        functionals = {name for file in files for name in file.functionals}
        return {
            "name": self.config.name,
            "sources": {
                source.path.name: {"rows": len(file), "passes": source.passes}
                for source, file in zip(self.config.sources, files, strict=True)
            },
            "steps": self.step,
            "crystals": self.crystals,
            "hours": round(self.seconds / 3600, 2),
            "validation": scores,
            "elements": elements,
            "functionals": [name for name in FUNCTIONALS if name in functionals],
        }

    def _log_loss(self, loss: Loss) -> None:
        row = {"step": self.step, "minutes": round(self.seconds / 60, 2), "crystals": self.crystals}
        terms = {name: round(term.item(), 5) for name, term in vars(loss).items()}
        _append(self.folder / "log.csv", [row | terms])


def read_config(path: Path, data: Path | None = None) -> TrainConfig:
    """Read a training run from JSON or YAML.

    Args:
        path: The file.
        data: Folder that relative paths of sources start from; that of the file if None.

    Raises:
        ValueError: No such file, or not a valid configuration; every wrong entry is named.
    """
    if not path.is_file():
        msg = f"no configuration {path}"
        raise ValueError(msg)
    try:
        entries = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        msg = f"{path} is neither JSON nor YAML: {error}"
        raise ValueError(msg) from error
    if not isinstance(entries, dict):
        msg = f"{path} holds no configuration"
        raise ValueError(msg)
    for source in entries.get("sources", ()):
        source["path"] = str((data or path.parent) / source["path"])
    return TrainConfig(**entries)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then cosine decay to the final rate."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(config.steps - config.warmup_steps, 1)
    swing = config.learning_rate - config.final_learning_rate
    return config.final_learning_rate + swing * (1 + math.cos(math.pi * min(done, 1.0))) / 2


def _within(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _append(path: Path, rows: list[dict[str, Any]]) -> None:
    """Append rows to a CSV file, with a header if it is new."""
    is_new = not path.exists()
    with path.open("a", newline="") as stream:
        for row in rows:
            writer = csv.DictWriter(stream, list(row))
            if is_new:
                writer.writeheader()
                is_new = False
            writer.writerow({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})


def _keep_freed_memory() -> None:
    """Tell glibc to keep freed memory: returning tens of MB a layer doubles the time of a step."""
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    mallopt(mmap_threshold, 1 << 30)
    mallopt(trim_threshold, (1 << 31) - 1)
    mallopt(top_pad, 1 << 26)
