"""The network is told what is held, and the solve obeys it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111
from ase.constraints import FixAtoms
from pymatgen.io.ase import AseAtomsAdaptor

from deeprelax_ase import Relaxer, solver
from deeprelax_ase.datasets.augment import Pair, disturb, move_input
from deeprelax_ase.datasets.config import NoiseConfig
from deeprelax_ase.datasets.pair_file import collate
from deeprelax_ase.network.checkpoint import load_weights, save_weights
from deeprelax_ase.network.config import NetworkConfig
from deeprelax_ase.network.graph import build_graph
from deeprelax_ase.network.paegnn import PaEGNN
from deeprelax_ase.structures.crystal import Crystal, exp_symmetric
from deeprelax_ase.structures.read_structure import read_structure
from deeprelax_ase.training.own_outputs import FURTHER, move, nearest

CONFIG = NetworkConfig(num_features=16, num_tensors=8, num_layers=2)


@pytest.fixture
def told(random_weights, tmp_path):
    """Weights that make much of what is held."""
    weights = load_weights(random_weights)
    torch.manual_seed(5)
    torch.nn.init.normal_(weights.network.held.weight)
    path = tmp_path / "told.safetensors"
    save_weights(path, weights.network, weights.provenance, weights.calibration)
    return path


def slab(fixed=()):
    atoms = fcc111("Sr", (2, 2, 4), a=6.0, vacuum=8.0)
    atoms.rattle(0.05, seed=4)
    if len(fixed):
        atoms.set_constraint(FixAtoms(indices=fixed))
    return atoms


def crystal(fixed=(), held=False):
    read = read_structure(slab(fixed)).crystal
    return replace(read, held_strain=np.eye(9)) if held else read


def test_with_nothing_held_the_result_does_not_depend_on_the_new_inputs(random_weights, told):
    for atoms in (slab(), bulk("MgO", "rocksalt", a=4.4)):
        one, other = (Relaxer(weights).relax(atoms) for weights in (random_weights, told))
        assert np.array_equal(one.displacement, other.displacement)
        assert np.array_equal(one.strain, other.strain)


@pytest.mark.parametrize("passes", [1, 3])
def test_what_is_held_changes_how_the_rest_moves(random_weights, told, passes):
    fixed = range(8)
    free = Relaxer(told, passes=passes, always_move=True).relax(slab())
    one, other = (
        Relaxer(weights, passes=passes, relax_cell=False, always_move=True).relax(slab(fixed))
        for weights in (random_weights, told)
    )
    assert np.abs(one.displacement[8:] - other.displacement[8:]).max() > 1e-4
    for result in (one, other):
        assert np.abs(result.structure.positions[:8] - slab().positions[:8]).max() < 1e-12
        assert np.abs(result.structure.positions[8:] - slab().positions[8:]).max() > 1e-4
        assert np.abs(result.strain).max() < 1e-12
    assert np.abs(free.displacement[:8]).max() > 1e-6


def test_the_solve_never_moves_a_fixed_atom_nor_feels_its_heads():
    torch.manual_seed(2)
    network = PaEGNN(CONFIG)
    graph = build_graph([crystal(range(5)), crystal()], ["PBE", "PBE"], CONFIG)
    prediction = network(graph.to(torch.float32)).to(torch.float64)
    assert not prediction.displacements[:5].any()
    assert prediction.displacements[16:].mean(dim=0).abs().max() < 1e-7
    solution = solver.solve(graph, prediction, max_steps=3)
    assert not solution.displacements[:5].any()
    assert solution.displacements[5:16].any(dim=1).all()
    assert solution.displacements[16:].mean(dim=0).abs().max() < 1e-12
    # Nothing of what is said of fixed atoms themselves plays a part.
    weights = prediction.displacement_weights.clone()
    weights[:5] *= 100
    again = solver.solve(graph, replace(prediction, displacement_weights=weights), max_steps=3)
    assert torch.allclose(again.displacements, solution.displacements, atol=1e-12)


def test_a_large_slab_is_solved_as_a_small_one_is():
    torch.manual_seed(2)
    network = PaEGNN(CONFIG)
    small = crystal(range(8))
    atoms = slab(range(8)).repeat((6, 6, 1))
    graphs = [build_graph([c], ["PBE"], CONFIG) for c in (small, read_structure(atoms).crystal)]
    with torch.no_grad():
        moves = [
            solver.solve(g, network(g.to(torch.float32)).to(torch.float64), max_steps=1)
            for g in graphs
        ]
    assert len(atoms) > 400
    assert torch.allclose(moves[1].displacements[:16], moves[0].displacements, atol=1e-5)


def test_one_fixed_atom_tells_the_network_nothing():
    assert read_structure(slab([3])).crystal.fixed is None
    assert read_structure(slab([3, 4])).crystal.fixed.sum() == 2
    assert read_structure(slab(range(16))).crystal.fixed.all()


def test_no_operation_takes_a_fixed_atom_to_a_free_one(told):
    flat = fcc111("Sr", (1, 1, 4), a=6.0, vacuum=8.0)  # has inversion, with its bottom fixed not
    flat.set_constraint(FixAtoms(indices=[0, 1]))
    result = Relaxer(told, relax_cell=False).relax(flat)
    assert result.status == "relaxed"
    moved = result.structure.positions - flat.positions
    assert np.abs(moved[:2]).max() < 1e-12
    assert np.abs(moved[2:, 2]).max() > 1e-5
    assert np.abs(moved[:, :2]).max() < 1e-12


def test_how_many_strains_are_held():
    free = crystal()
    assert free.held_strains() == (0, 3)
    assert replace(free, held_strain=np.eye(9)).held_strains() == (3, 3)
    cubic = Crystal(np.array([12]), np.zeros((1, 3)), 3.0 * np.eye(3), np.ones(3, dtype=bool))
    volume = np.eye(3).reshape(1, 9)
    assert replace(cubic, held_strain=volume).held_strains() == (1, 6)
    # Nobody asked for what vacuum holds: a layer has three strains.
    layer = replace(cubic, across_vacuum=np.kron(np.eye(3), [0.0, 0.6, 0.8]))
    assert layer.held_strains() == (0, 3)
    assert replace(layer, held_strain=volume).held_strains() == (1, 3)
    assert replace(layer, held_strain=np.eye(9)).held_strains() == (3, 3)
    alone = replace(layer, across_vacuum=np.eye(9), held_strain=volume)
    assert alone.held_strains() == (0, 0)


@pytest.mark.parametrize("held", [False, True])
def test_disturbed_pairs_keep_what_is_held(held):
    rng = np.random.default_rng(0)
    start = crystal(range(6), held=held)
    moves = start.settled(rng.normal(size=(16, 3)) * 0.1)
    pair = Pair(start, "PBE", moves, np.eye(3))
    noise = NoiseConfig(untouched=0.0, on_the_way=0.5)
    for _ in range(5):
        other = disturb(pair, noise, rng)
        assert np.abs(other.displacements[:6]).max() < 1e-12
        assert np.allclose(other.relaxed.positions, pair.relaxed.positions, atol=0.5)
        if held:
            assert np.abs(other.crystal.cell - start.cell).max() < 1e-12
            assert np.allclose(other.relaxed.positions, pair.relaxed.positions)


@pytest.mark.parametrize("kind", ["bulk", "slab", "sheet"])
def test_moved_graphs_are_those_of_moved_crystals(kind):
    """On the device, pairs are chosen among those found before the move."""
    rng = np.random.default_rng(1)
    if kind == "bulk":
        atoms = bulk("MgO", "rocksalt", a=4.4).repeat((2, 2, 1))
    elif kind == "slab":
        atoms = slab(range(6))
    else:
        atoms = Atoms("SrO", [[0, 0, 8], [1.8, 1.8, 8.3]], cell=[3.6, 3.6, 16], pbc=[1, 1, 0])
    start = read_structure(atoms).crystal
    count = len(start)
    strain = rng.normal(size=(3, 3)) * 0.02
    free = (start.strain_freedom() @ (strain + strain.T).ravel()).reshape(3, 3)
    pair = Pair(start, "PBE", start.settled(rng.normal(size=(count, 3)) * 0.1), exp_symmetric(free))
    own = start.settled(rng.normal(size=(count, 3)) * 0.05), exp_symmetric(free / 2)
    wide = collate([pair], CONFIG, FURTHER)
    moved = move(*wide, torch.from_numpy(own[0]), torch.from_numpy(own[1])[None])
    ours = nearest(*moved, CONFIG)
    theirs = collate([move_input(pair, *own)], CONFIG)
    names = ("positions", "displacements", "deformations", "strains", "holds", "anchored")
    for here, there in zip(ours, theirs, strict=True):
        for name in names:
            if hasattr(there, name):
                assert torch.allclose(getattr(here, name), getattr(there, name), atol=1e-9), name
    # The search lists pairs in an order, and from an end, of its own.
    lists = [
        torch.stack([graph.edge_lengths, targets.distances, graph.edge_vectors.abs().sum(dim=1)])
        for graph, targets in (ours, theirs)
    ]
    here, there = (each.T[np.lexsort(each.numpy().round(6))] for each in lists)
    assert torch.allclose(here, there, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_fixed_atoms_of_a_held_cell_do_not_move_by_a_bit(random_weights, seed):
    atoms = bulk("Cu", a=3.7) * (2, 2, 2)
    atoms.rattle(0.1, seed=seed)
    atoms.set_constraint(FixAtoms(range(4)))
    relaxer = Relaxer(random_weights, always_move=True, allow_unseen=True, hold="cell")
    result = relaxer.relax(atoms)
    assert result.status == "relaxed"
    assert (result.structure.positions[:4] == atoms.positions[:4]).all()
    assert (result.structure.cell[:] == atoms.cell[:]).all()


@pytest.mark.parametrize("hold", ["a", "ab", "bc"])
def test_held_vectors_do_not_change_by_a_bit(random_weights, hold):
    atoms = bulk("MgO", "rocksalt", a=4.5) * (2, 1, 1)
    atoms.rattle(0.03, seed=1)
    for structure in (atoms, AseAtomsAdaptor.get_structure(atoms)):
        relaxed = Relaxer(random_weights, always_move=True, hold=hold).relax(structure).structure
        cells = [
            np.array(one.cell) if isinstance(one, Atoms) else one.lattice.matrix
            for one in (structure, relaxed)
        ]
        for axis in hold:
            row = "abc".index(axis)
            assert (cells[0][row] == cells[1][row]).all()
