"""Shapes and types are checked in every function of the package while the tests run."""

from jaxtyping import install_import_hook

with install_import_hook("deeprelax_ase", "beartype.beartype"):
    import deeprelax_ase
    import deeprelax_ase.cli
    import deeprelax_ase.interfaces.ase_optimizer
    import deeprelax_ase.training.trainer

import numpy as np
import pytest
import torch
from hypothesis import settings
from pymatgen.core import Lattice, Structure

import deeprelax_ase.interfaces.pymatgen_transformation  # noqa: F401 - unchecked: monty reads its signature
from deeprelax_ase.network.checkpoint import save_weights
from deeprelax_ase.network.config import NetworkConfig
from deeprelax_ase.network.paegnn import PaEGNN
from deeprelax_ase.relaxation.relaxer import Relaxer

settings.register_profile("default", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("default")

SMALL = NetworkConfig(
    num_features=16,
    num_tensors=4,
    num_layers=2,
    num_radial=8,
    num_relative=6,
    edge_features=8,
    max_neighbors=12,
)


@pytest.fixture(scope="session")
def network() -> PaEGNN:
    """A small network with random weights, in double precision."""
    torch.manual_seed(0)
    return PaEGNN(SMALL).double().eval()


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory):
    """A weights file of a small network that moves atoms by some hundredths of an Å.

    It is sure of itself, so that moves are not taken for errors.
    """
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_weights(
        path, PaEGNN(SMALL), {"elements": [8, 12, 22, 38]}, {"displacement": 2.0, "distance": 0.001}
    )
    return path


@pytest.fixture(scope="session")
def relaxer() -> Relaxer:
    """The shipped weights."""
    return Relaxer()


@pytest.fixture
def perovskite() -> Structure:
    """Rattled and strained SrTiO3, decorated with all a Structure can carry."""
    structure = Structure(
        Lattice.cubic(4.1),
        ["Sr", "Ti", "O", "O", "O"],
        [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
        charge=1,
        labels=["Sr1", "Ti1", "Oa", "Ob", "Oc"],
        site_properties={"magmom": [0.0, 1.5, 0.0, 0.1, 0.0], "tag": list("abcde")},
        properties={"origin": "test"},
    )
    structure.add_oxidation_state_by_element({"Sr": 2, "Ti": 4, "O": -2})
    structure.translate_sites([1], [0.02, 0.01, 0.03])
    return structure


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
