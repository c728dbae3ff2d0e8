"""The folder of a training run: what is kept in it, and how a run goes on from there."""

import csv
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from deeprelax_ase.files.atomic_write import replace_text
from deeprelax_ase.files.fingerprint import sha256_of
from deeprelax_ase.files.lock import locked
from deeprelax_ase.network.checkpoint import load_tensors, save_tensors
from deeprelax_ase.training.config import TrainConfig

VALIDATIONS = "validation.csv"
_CONFIG = "config.json"
_WHERE_IT_RUNS = {"device", "threads", "workers", "compile", "log_every", "checkpoint_minutes"}


@dataclass(frozen=True)
class RunFolder:
    """Where one run is kept.

    Attributes:
        path: The folder; it is made when there is something to write.
        config: Of the run.
    """

    path: Path
    config: TrainConfig

    @contextmanager
    def at_work(self, step: int, validated: int) -> Iterator[None]:
        """The folder of a run that goes on from a step, with no other training in it meanwhile.

        Args:
            step: The last one that was made.
            validated: The last one after which the weights were validated.

        Raises:
            ValueError: There is one.
        """
        told = f"{self.path} is in use: another training is in this folder; name another one"
        with locked(self.path, told):
            self.open()
            self.forget_after({VALIDATIONS: validated}, step)
            yield

    def open(self) -> None:
        """Make the folder of a new run, with its configuration."""
        if not self._state.exists():
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / _CONFIG).write_text(self._config_text())

    def _check_is_free(self) -> None:
        """Refuse a folder with what a new run would overwrite.

        Raises:
            ValueError: It holds weights, or a configuration that is not that of the run.
        """
        path = self.path / _CONFIG
        made = (self.path / name for name in ("best.safetensors", "last.safetensors"))
        weights = [path for path in made if path.exists()]
        if weights:
            msg = (
                f"{weights[0]} is there without the state of its run, and would be overwritten: "
                "name another folder"
            )
            raise ValueError(msg)
        if path.exists() and path.read_text() != self._config_text():
            msg = f"{path} is there and not of this run: name another folder, or take it away"
            raise ValueError(msg)

    def _config_text(self) -> str:
        """The configuration, with places as seen from the folder."""
        entries = self._entries
        start = entries["start_from"]
        places = {
            "sources": [s | {"path": self._from_here(s["path"])} for s in entries["sources"]],
            "start_from": start and self._from_here(start),
        }
        return json.dumps(entries | places, indent=2) + "\n"

    def _from_here(self, place: str) -> str:
        # What is no file is a name, of shipped weights.
        here = os.path.realpath(self.path)
        return os.path.relpath(os.path.realpath(place), here) if Path(place).exists() else place

    def save_state(self, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
        """Write what a resumed run needs."""
        self.open()
        save_tensors(self._state, tensors, metadata | {"config": self._entries, "data": self._data})

    def load_state(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What was saved last, or None.

        Raises:
            ValueError: It is of another configuration, or of files that have changed.
        """
        if not self._state.exists():
            self._check_is_free()
            return None
        tensors, metadata = load_tensors(self._state)
        if "config" not in metadata:
            msg = f"{self._state} is not the state of a run: name another folder, or take it away"
            raise ValueError(msg)
        before = _what_matters(_with_defaults(metadata["config"]))
        now = _what_matters(self._entries)
        others = [name for name in now if now[name] != before.get(name)]
        if others:
            msg = (
                f"{self.path} holds a run of another configuration ({', '.join(others)}): name "
                "another folder, or give the configuration in its config.json"
            )
            raise ValueError(msg)
        for name, known in metadata.get("data", {}).items():
            if self._data.get(name, known) != known:
                msg = (
                    f"source {name} has changed since the run in {self.path} began: name another "
                    "folder, or put the file back"
                )
                raise ValueError(msg)
        return tensors, metadata

    def forget_after(self, steps: Mapping[str, int], step: int) -> None:
        """Drop what a run that was killed noted of steps that it will make again.

        Args:
            steps: The last ones to keep of single files.
            step: Of all others.
        """
        for path in self.path.glob("*.csv"):
            with path.open(newline="") as stream:  # ends of lines as they are
                head, *rows = list(stream) or [""]
            if not head.endswith("\n"):  # of a disk that was full
                path.unlink()
                continue
            last = steps.get(path.name, step)
            kept = [row for row in rows if row.endswith("\n") and _step_of(row) <= last]
            if len(kept) < len(rows):
                replace_text(path, head + "".join(kept))

    def last_validated(self) -> int:
        """Step that the last validation was noted of, for a state that does not say so."""
        path = self.path / VALIDATIONS
        rows = path.read_text().splitlines()[1:] if path.exists() else []
        return int(max((s for s in map(_step_of, rows) if s < math.inf), default=0))

    def append(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Append rows, of which the first entry is the step, to a CSV file, with a header first."""
        self.open()
        path = self.path / name
        is_new = not path.exists()
        with path.open("a", newline="") as stream:
            for row in rows:
                writer = csv.DictWriter(stream, list(row))
                if is_new:
                    writer.writeheader()
                    is_new = False
                writer.writerow(
                    {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
                )

    @cached_property
    def _data(self) -> dict[str, str]:
        """SHA-256 of every file of pairs, by its place and name."""
        paths = [Path(source.path) for source in self.config.sources]
        return {f"{place}. {path.name}": sha256_of(path) for place, path in enumerate(paths, 1)}

    @property
    def _state(self) -> Path:
        return self.path / "state.safetensors"

    @property
    def _entries(self) -> dict[str, Any]:
        return self.config.model_dump(mode="json")


def _step_of(row: str) -> float:
    """Step that a row of a CSV file is of; never, where it is damaged."""
    number = row.split(",", 1)[0]
    return float(number) if number.isdecimal() else math.inf


def _with_defaults(entries: dict[str, Any]) -> dict[str, Any]:
    """Stored entries, with what came later at its default."""
    try:
        return TrainConfig.model_validate(entries).model_dump(mode="json")
    except ValidationError:
        return entries


def _what_matters(entries: dict[str, Any]) -> dict[str, Any]:
    """Entries that a run's steps depend on: not where it runs, nor where its files lie."""
    kept = {name: value for name, value in entries.items() if name not in _WHERE_IT_RUNS}
    names = [Path(source["path"]).name for source in entries["sources"]]
    return kept | {
        "sources": [
            source | {"path": name} for source, name in zip(entries["sources"], names, strict=True)
        ],
        "start_from": entries["start_from"] and Path(entries["start_from"]).name,
    }
