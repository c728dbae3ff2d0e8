"""Weights on disk: safetensors with configuration, provenance and calibration as metadata.

Nothing here unpickles. Files are written beside their place and then renamed, so that a full
disk or a killed process leaves the old file whole.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_bytes
from torch import Tensor

from deeprelax_ase.files.atomic_write import written_beside
from deeprelax_ase.network.config import FUNCTIONALS, NetworkConfig
from deeprelax_ase.network.paegnn import PaEGNN
from deeprelax_ase.network.weights_registry import weights_path, weights_sha256

FORMAT = "deeprelax-ase/1"
_FIRST_FUNCTIONALS = ("unknown", "PBE", "PBEsol", "r2SCAN", "optB88-vdW")
"""Of weights that do not name theirs."""


@dataclass(frozen=True)
class Weights:
    """A network with what is known of it.

    Attributes:
        network: In evaluation mode.
        name: Name in `weights/`, or the path it came from.
        sha256: Of the file.
        provenance: How it was trained: data, steps, accuracy, elements seen.
        calibration: Factors that turn scales into expected errors.
    """

    network: PaEGNN
    name: str
    sha256: str
    provenance: Mapping[str, Any]
    calibration: Mapping[str, Any]


def elements_seen(provenance: Mapping[str, Any]) -> dict[str, set[int]]:
    """Atomic numbers that weights saw with each functional; all of theirs if no more is known."""
    functionals = provenance.get("functionals", {})
    if not isinstance(functionals, Mapping):
        functionals = dict.fromkeys(functionals, provenance.get("elements", ()))
    return {name: set(elements) for name, elements in functionals.items()}


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and JSON metadata as safetensors."""
    own = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = {key: json.dumps(value) for key, value in metadata.items()}
    with written_beside(Path(path)) as beside:
        beside.write_bytes(save_bytes(own, metadata=text))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote.

    Raises:
        ValueError: The file is missing, truncated, or not safetensors.
    """
    if not path.is_file():
        msg = f"no weights file {str(path)!r}"
        raise ValueError(msg)
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
            metadata = {k: _decode(v) for k, v in (file.metadata() or {}).items()}
    except (SafetensorError, OSError) as error:
        msg = f"{str(path)!r} is not a whole safetensors file ({error})"
        raise ValueError(msg) from error
    return tensors, metadata


def _decode(text: str) -> Any:
    """A metadata entry; those of other programs need not be JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def save_weights(
    path: Path,
    network: PaEGNN,
    provenance: Mapping[str, Any],
    calibration: Mapping[str, Any] | None = None,
) -> None:
    """Write a network with its configuration and provenance."""
    metadata = {
        "format": FORMAT,
        "network": network.config.model_dump(mode="json"),
        "provenance": provenance,
        "calibration": calibration or {},
    }
    save_tensors(path, network.state_dict(), metadata)


def _extend(tensors: dict[str, Tensor], names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of functionals with those that the weights do not name.

    A new one starts as what it adds dispersion to, or else as an unknown one.
    """
    known = dict(zip(names, tensors["functionals.weight"], strict=True))
    new = tuple(name for name in FUNCTIONALS if name not in known)
    rows = [known.get(name.removesuffix("-D3"), known["unknown"]) for name in new]
    tensors["functionals.weight"] = torch.stack([*known.values(), *rows])
    return names + new


def load_weights(name: str | Path) -> Weights:
    """Load named weights, or those of a path.

    Args:
        name: Name of shipped weights, or a path to a safetensors file.

    Raises:
        ValueError: No such weights, not a whole safetensors file, or not of this network.
    """
    path = weights_path(name)
    tensors, metadata = load_tensors(path)
    if metadata.get("format") != FORMAT:
        msg = (
            f"{str(path)!r} holds no deeprelax weights (format {metadata.get('format')!r}, "
            f"expected {FORMAT!r}); write them with `deeprelax train`"
        )
        raise ValueError(msg)
    try:
        entries = {"functionals": _FIRST_FUNCTIONALS, **metadata["network"]}
        entries["functionals"] = _extend(tensors, tuple(entries["functionals"]))
        network = PaEGNN(NetworkConfig(**entries))
        # Weights that were never told what is held.
        tensors.setdefault("held.weight", network.held.weight)
        network.load_state_dict(tensors)
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        msg = f"{str(path)!r} is of another architecture than this version reads: {reason}"
        raise ValueError(msg) from error
    return Weights(
        network=network.eval().requires_grad_(requires_grad=False),
        name=str(name),
        sha256=weights_sha256(path),
        provenance=metadata.get("provenance", {}),
        calibration=metadata.get("calibration", {}),
    )
