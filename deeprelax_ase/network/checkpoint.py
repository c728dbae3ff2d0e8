"""Weights on disk: safetensors with configuration, provenance and calibration as metadata.

Nothing here unpickles. Files are written beside their place and then renamed, so that a full
disk or a killed process leaves the old file whole. Weights are read without torch, which takes
longer to import than a file of crystals to relax; a network is made of them when it is asked for.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_bytes

from deeprelax_ase.files.atomic_write import written_beside
from deeprelax_ase.network.config import FUNCTIONALS, NetworkConfig
from deeprelax_ase.network.weights_registry import is_shipped, weights_path, weights_sha256

FORMAT = "deeprelax-ase/1"
_FIRST_FUNCTIONALS = ("unknown", "PBE", "PBEsol", "r2SCAN", "optB88-vdW")
"""Of weights that do not name theirs."""


@dataclass(frozen=True, eq=False)
class Weights:
    """A network with what is known of it.

    Attributes:
        config: Of the network.
        stored: Its weights as they were read.
        name: Name in `weights/`, or the path it came from.
        sha256: Of the file.
        provenance: How it was trained: data, steps, accuracy, elements seen.
        calibration: Factors that turn scales into expected errors.
    """

    config: NetworkConfig
    stored: Mapping[str, np.ndarray]
    name: str
    sha256: str
    provenance: Mapping[str, Any]
    calibration: Mapping[str, Any]

    @cached_property
    def network(self) -> Any:
        """The `PaEGNN`, in evaluation mode."""
        import torch

        from deeprelax_ase.network.paegnn import PaEGNN

        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)  # whatever the process has set for others
        try:
            with torch.device("cpu"):
                network = PaEGNN(self.config)
        finally:
            torch.set_default_dtype(before)
        network.load_state_dict({k: torch.from_numpy(v) for k, v in self.stored.items()})
        return network.eval().requires_grad_(requires_grad=False)

    @property
    def arrays(self) -> Mapping[str, np.ndarray]:
        """The weights of the network by name, as they are now."""
        return self.network.arrays() if "network" in vars(self) else self.stored


def elements_seen(provenance: Mapping[str, Any]) -> dict[str, set[int]]:
    """Atomic numbers that weights saw with each functional; all of theirs if no more is known."""
    functionals = provenance.get("functionals", {})
    if not isinstance(functionals, Mapping):
        functionals = dict.fromkeys(functionals, provenance.get("elements", ()))
    return {name: set(elements) for name, elements in functionals.items()}


def save_tensors(path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Write tensors of torch and JSON metadata as safetensors."""
    own = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in tensors.items()}
    text = {key: json.dumps(value) for key, value in metadata.items()}
    with written_beside(Path(path)) as beside:
        beside.write_bytes(save_bytes(own, metadata=text))


def load_tensors(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what `save_tensors` wrote, as tensors of torch.

    Raises:
        ValueError: The file is missing, truncated, or not safetensors.
    """
    import torch

    arrays, metadata = load_arrays(path)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}, metadata


def load_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `save_tensors` wrote, as arrays.

    Raises:
        ValueError: The file is missing, truncated, or not safetensors.
    """
    if not path.is_file():
        msg = f"no weights file {str(path)!r}"
        raise ValueError(msg)
    try:
        with safe_open(path, framework="np") as file:
            names = file.keys()
            arrays = {name: file.get_tensor(name) for name in names}
            metadata = {k: _decode(v) for k, v in (file.metadata() or {}).items()}
    except (SafetensorError, OSError) as error:
        if not os.access(path, os.R_OK):
            msg = f"{str(path)!r} cannot be read: permission denied"
            raise ValueError(msg) from error
        msg = f"{str(path)!r} is not a whole safetensors file ({error})"
        raise ValueError(msg) from error
    return arrays, metadata


def _decode(text: str) -> Any:
    """A metadata entry; those of other programs need not be JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def save_weights(
    path: Path,
    network: Any,
    provenance: Mapping[str, Any],
    calibration: Mapping[str, Any] | None = None,
) -> None:
    """Write a `PaEGNN` with its configuration and provenance."""
    metadata = {
        "format": FORMAT,
        "network": network.config.model_dump(mode="json"),
        "provenance": provenance,
        "calibration": calibration or {},
    }
    save_tensors(path, network.state_dict(), metadata)


def _extend(arrays: dict[str, np.ndarray], names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of functionals with those that the weights do not name.

    A new one starts as what it adds dispersion to, or else as an unknown one.
    """
    known = dict(zip(names, arrays["functionals.weight"], strict=True))
    new = tuple(name for name in FUNCTIONALS if name not in known)
    rows = [known.get(name.removesuffix("-D3"), known["unknown"]) for name in new]
    arrays["functionals.weight"] = np.stack([*known.values(), *rows])
    return names + new


def _entry(metadata: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = metadata.get(name, {})
    if not isinstance(found, dict):
        msg = f"its {name} is {found!r}, and has to be an object"
        raise TypeError(msg)
    return found


def load_weights(name: str | Path) -> Weights:
    """Load named weights, or those of a path.

    Args:
        name: Name of shipped weights, or a path to a safetensors file.

    Raises:
        ValueError: No such weights, not a whole safetensors file, or not of this network.
    """
    path = weights_path(name)
    arrays, metadata = load_arrays(path)
    if metadata.get("format") != FORMAT:
        msg = (
            f"{str(path)!r} holds no deeprelax weights (format {metadata.get('format')!r}, "
            f"expected {FORMAT!r}); write them with `deeprelax train`"
        )
        raise ValueError(msg)
    try:
        entries = {"functionals": _FIRST_FUNCTIONALS, **metadata["network"]}
        entries["functionals"] = _extend(arrays, tuple(entries["functionals"]))
        config = NetworkConfig(**entries)
        # Weights that were never told what is held.
        arrays.setdefault("held.weight", np.zeros((config.num_features, 2), dtype=np.float32))
        weights = Weights(
            config=config,
            stored=arrays,
            name=str(name),
            sha256=weights_sha256(path),
            provenance=_entry(metadata, "provenance"),
            calibration=_entry(metadata, "calibration"),
        )
        if not is_shipped(path):  # whether all of it is there shows only then
            _ = weights.network
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        msg = f"{str(path)!r} is of another architecture than this version reads: {reason}"
        raise ValueError(msg) from error
    return weights
