"""The trace for small crystals gives what the general way gives."""

import copy
import pickle
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from ase.build import bulk
from hypothesis import given

from deeprelax_ase import solver
from deeprelax_ase.network.graph import build_graph
from deeprelax_ase.relaxation import traced
from deeprelax_ase.relaxation.relaxer import Relaxer
from deeprelax_ase.relaxation.traced import TracedMove
from deeprelax_ase.structures.read_structure import read_structure
from tests.conftest import SMALL
from tests.strategies import crystals


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """No waiting for it to be worth it."""
    monkeypatch.setattr(traced, "_WORTH_IT", 0)


@pytest.fixture(scope="module")
def single(network):
    """The network in single precision."""
    return copy.deepcopy(network).float()


@pytest.fixture(scope="module")
def move(single):
    return TracedMove(single, SMALL)


def general(network, graph):
    with torch.inference_mode():
        prediction = network(graph.to(torch.float32)).to(torch.float64)
    return prediction, solver.solve(graph, prediction, max_steps=1)


@given(crystals(max_atoms=8))
def test_same_as_the_general_way(move, single, crystal):
    graph = build_graph([crystal], ["PBE"], SMALL)
    found = move(graph)
    prediction, solution = general(single, graph)
    if found is None:  # no pairs, or a step that does not count
        assert not len(graph.edge_lengths) or not bool(solution.steps.all())
        return
    for one, other in zip(found, (prediction, solution), strict=True):
        for field in fields(one):
            values = getattr(one, field.name), getattr(other, field.name)
            torch.testing.assert_close(*values, rtol=1e-4, atol=1e-5)


def test_what_is_left_to_the_general_way(move, single):
    copper = read_structure(bulk("Cu")).crystal
    large = read_structure(bulk("Cu") * (6, 6, 6)).crystal
    assert move(build_graph([copper], ["PBE"], SMALL)) is not None
    assert move(build_graph([copper, copper], ["PBE"] * 2, SMALL)) is None
    assert move(build_graph([large], ["PBE"], SMALL)) is None
    two_steps = SMALL.model_copy(update={"solver_steps": 2})
    assert TracedMove(single, two_steps)(build_graph([copper], ["PBE"], SMALL)) is None


def test_a_prediction_that_is_not_finite_goes_the_general_way(single):
    class Broken(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.sound = single

        def forward(self, graph):
            prediction = self.sound(graph)
            return replace(prediction, displacements=prediction.displacements / 0.0)

    graph = build_graph([read_structure(bulk("MgO", "rocksalt", a=4.3)).crystal], ["PBE"], SMALL)
    assert TracedMove(Broken(), SMALL)(graph) is None


def test_relaxers_agree_before_and_after_it_is_taken(random_weights, monkeypatch, rng):
    atoms = bulk("TiO", "rocksalt", a=4.4, cubic=True)
    atoms.rattle(0.1, rng=rng)
    monkeypatch.setattr(traced, "_WORTH_IT", 1)
    relaxer = Relaxer(random_weights)
    first, second = relaxer.relax(atoms), relaxer.relax(atoms)
    np.testing.assert_allclose(first.structure.positions, second.structure.positions, atol=1e-5)
    np.testing.assert_allclose(first.strain, second.strain, atol=1e-6)
    held = relaxer.relax(atoms, relax_cell=False)
    np.testing.assert_array_equal(held.structure.cell, atoms.cell)


def test_a_relaxer_can_be_sent_to_another_process(random_weights):
    atoms = bulk("TiO", "rocksalt", a=4.4)
    relaxer = Relaxer(random_weights)
    first = relaxer.relax(atoms)
    other = pickle.loads(pickle.dumps(relaxer))  # noqa: S301
    np.testing.assert_allclose(other.relax(atoms).strain, first.strain, atol=1e-6)
    copy.deepcopy(relaxer).relax(atoms)
