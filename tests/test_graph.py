from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule, mx2
from ase.build import graphene as ase_graphene
from ase.cell import Cell
from ase.neighborlist import neighbor_list
from conftest import SMALL
from hypothesis import given
from strategies import crystals

from deeprelax_ase.network.config import NetworkConfig
from deeprelax_ase.network.graph import build_graph, canonical_offsets
from deeprelax_ase.structures.crystal import Crystal, complete_cell
from deeprelax_ase.structures.read_structure import plain_crystal

ALL = SMALL.model_copy(update={"max_neighbors": 10_000})


def crystal_of(atoms):
    return Crystal(atoms.numbers.astype(np.int64), atoms.positions, np.array(atoms.cell), atoms.pbc)


def directed_edges(graph):
    """Every edge of both directions, as sortable rows."""
    i, j = graph.edge_index.numpy()
    offsets, lengths = graph.offsets.numpy(), graph.edge_lengths.numpy()
    one = np.column_stack([i, j, offsets, lengths])
    other = np.column_stack([j, i, -offsets, lengths])
    return sorted(map(tuple, np.round(np.concatenate([one, other]), 8)))


@given(crystals())
def test_same_edges_as_ase(crystal):
    graph = build_graph([crystal], ["PBE"], ALL)
    atoms = Atoms(crystal.numbers, crystal.positions, cell=crystal.cell, pbc=crystal.pbc)
    i, j, offsets, lengths = neighbor_list("ijSd", atoms, SMALL.reach)
    expected = np.column_stack([i, j, offsets, lengths])
    assert directed_edges(graph) == sorted(map(tuple, np.round(expected, 8)))


@given(crystals())
def test_edge_vectors_follow_the_convention(crystal):
    graph = build_graph([crystal], ["PBE"], ALL)
    i, j = graph.edge_index
    vectors = graph.positions[j] + graph.offsets.double() @ graph.cells[0] - graph.positions[i]
    torch.testing.assert_close(graph.edge_vectors, vectors)
    torch.testing.assert_close(graph.edge_lengths, vectors.norm(dim=1))


def test_whole_shells_are_kept():
    crystal = crystal_of(bulk("Cu", "fcc", a=3.6))
    # Shells of fcc: 12, 6, 24 neighbours.
    for cap, kept in ((1, 12), (12, 12), (13, 18), (18, 18), (19, 42)):
        config = SMALL.model_copy(update={"max_neighbors": cap})
        graph = build_graph([crystal], ["PBE"], config)
        assert 2 * graph.edge_index.shape[1] == kept


def test_nearest_neighbours_of_either_end_are_kept(rng):
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.positions += rng.normal(scale=0.3, size=atoms.positions.shape)
    config = SMALL.model_copy(update={"max_neighbors": 6})
    graph = build_graph([crystal_of(atoms)], ["PBE"], config)
    kept = set(directed_edges(graph))
    i, j, offsets, lengths = neighbor_list("ijSd", atoms, SMALL.reach)
    for atom in range(len(atoms)):
        own = np.flatnonzero(i == atom)
        for edge in own[np.argsort(lengths[own])][:6]:
            row = (i[edge], j[edge], *offsets[edge], np.round(lengths[edge], 8))
            assert tuple(map(float, row)) in kept


@pytest.mark.parametrize(
    "atoms",
    [
        Atoms("Fe", pbc=False),
        Atoms("Fe", cell=[30, 30, 30], pbc=True),
        Atoms("Po", cell=[3.35] * 3, pbc=True),
        Atoms("NaCl", [[0, 0, 0], [0, 0, 2.5]], cell=[20, 20, 5], pbc=True),
    ],
)
def test_odd_crystals_make_graphs(atoms, network):
    cell = complete_cell(np.array(atoms.cell), atoms.pbc)
    crystal = Crystal(atoms.numbers.astype(np.int64), atoms.positions, cell, atoms.pbc)
    prediction = network(build_graph([crystal], ["PBE"], SMALL))
    assert prediction.displacements.isfinite().all()
    assert prediction.strains.isfinite().all()


def test_batch_is_the_sum_of_its_crystals():
    some = [crystal_of(bulk("Cu")), crystal_of(bulk("MgO", "rocksalt", a=4.2) * (2, 1, 1))]
    graph = build_graph(some, ["PBE", "r2SCAN"], SMALL)
    assert graph.num_atoms.tolist() == [1, 4]
    for number, crystal in enumerate(some):
        single = build_graph([crystal], ["PBE"], SMALL)
        inside = graph.edge_batch == number
        torch.testing.assert_close(graph.edge_vectors[inside], single.edge_vectors)
    assert graph.functionals.tolist() == [1, 3]
    torch.testing.assert_close(
        graph.mean(torch.ones(5, 2, dtype=torch.float64)), torch.ones(2, 2, dtype=torch.float64)
    )


@pytest.mark.parametrize(
    "change", [[[1, 1, 0], [0, 1, 0], [0, -1, 1]], [[0, 1, 0], [0, 0, 1], [1, 0, 3]]]
)
def test_canonical_offsets_do_not_depend_on_the_cell(rng, change):
    """The same crystal in another cell, its atoms in other images, has the same offsets."""
    cell = np.array([[4.0, 0.1, 0.3], [0.5, 4.7, 0.2], [0.4, 0.9, 5.6]])
    scaled = rng.uniform(0.05, 0.95, size=(3, 3))
    crystal = Crystal(np.array([8, 12, 22]), scaled @ cell, cell, np.array([True] * 3))
    moves = np.array([[0, 0, 0], [1, -1, 0], [0, 2, 1]])
    other = replace(crystal, cell=np.array(change) @ cell, positions=(scaled + moves) @ cell)
    config = ALL.model_copy(update={"ucoe": True})
    here, there = (build_graph([c], ["PBE"], config) for c in (crystal, other))
    assert (here.offsets != 0).any()
    assert encoded_edges(here) == encoded_edges(there)


def encoded_edges(graph):
    return directed_edges(replace(graph, offsets=graph.encoded_offsets))


def test_offsets_of_a_reduced_cell_are_its_own():
    crystal = crystal_of(bulk("MgO", "rocksalt", a=4.2, cubic=True))
    graph = build_graph([crystal], ["PBE"], ALL)
    i, j = graph.edge_index.numpy()
    canonical = canonical_offsets(crystal, i, j, graph.offsets.numpy())
    assert sorted(map(tuple, np.abs(canonical))) == sorted(
        map(tuple, np.abs(graph.offsets.numpy()))
    )


def graphite(spacing=3.35):
    cell = Cell.new([2.467, 2.467, 2 * spacing, 90, 90, 120])
    places = [[0, 0, 0.25], [1 / 3, 2 / 3, 0.25], [0, 0, 0.75], [2 / 3, 1 / 3, 0.75]]
    return Atoms("C4", scaled_positions=places, cell=cell, pbc=True)


def joins(atoms, limit=12):
    """Neighbours asked for, and whether the graph's pairs join two cells along each period."""
    crystal = plain_crystal(atoms)
    graph = build_graph([crystal], ["PBE"], NetworkConfig(max_neighbors=limit))
    repeats = np.where(crystal.pbc, 3, 1)
    cells = np.array(list(np.ndindex(*repeats)))
    nodes = {(atom, *cell): 0 for atom in range(len(atoms)) for cell in cells.tolist()}
    parents = {node: node for node in nodes}

    def root(node):
        while parents[node] != node:
            node = parents[node]
        return node

    for (i, j), offset in zip(graph.edge_index.T.tolist(), graph.offsets.tolist(), strict=True):
        for cell in cells:
            ends = (i, *cell.tolist()), (j, *((cell + offset) % repeats).tolist())
            one, other = map(root, ends)
            parents[one] = other
    return int(graph.neighbors[0]), len({root(node) for node in nodes}) == 1


@pytest.mark.parametrize(
    ("atoms", "asked"),
    [
        (graphite(), 24),
        (graphite(5.9), 48),
        (bulk("NaCl", "rocksalt", a=5.6), 12),
        (bulk("Cu"), 12),
        (mx2("MoS2", vacuum=8.0), 12),
        (ase_graphene(vacuum=8.0), 12),
        (graphite() * (2, 1, 1), 24),
        (fcc111("Cu", (1, 1, 3), vacuum=8.0), 12),
    ],
    ids=str,
)
def test_a_graph_holds_its_crystal_together(atoms, asked):
    assert joins(atoms) == (asked, True)


def test_layers_out_of_reach_stay_apart():
    assert not joins(graphite(8.0))[1]


def with_water(atoms, height):
    """A molecule over a slab, in a cell that repeats along all axes."""
    water = molecule("H2O")
    water.translate([1.0, 1.0, atoms.positions[:, 2].max() + height])
    return atoms + water


def as_layers(atoms):
    atoms.pbc = True
    return atoms


@pytest.mark.parametrize(
    "make", [lambda slab: with_water(slab, 8.0), lambda slab: slab * (1, 1, 3)]
)
def test_what_is_out_of_reach_changes_no_graph(make):
    slab = as_layers(fcc111("Cu", (2, 2, 3), vacuum=12.0))
    alone, whole = (
        build_graph([plain_crystal(atoms)], ["PBE"], NetworkConfig())
        for atoms in (slab, make(slab))
    )
    assert whole.neighbors.tolist() == alone.neighbors.tolist()
    is_own = (whole.edge_index < len(slab)).all(dim=0)
    torch.testing.assert_close(whole.edge_lengths[is_own].sort()[0], alone.edge_lengths.sort()[0])


def test_a_part_asks_for_more_where_another_is_out_of_reach():
    sheets = as_layers(graphite())
    assert joins(with_water(sheets * (2, 2, 1), 1.7))[0] == 24  # between the layers
    sheets.positions[:, 2] += 20.0
    far = Atoms("He", positions=[[0.0, 0.0, 8.0]])
    sheets.cell[2, 2] = 40.0
    assert joins(sheets + far) == (24, False)


def test_crystals_of_a_batch_ask_as_they_do_alone():
    atoms = [graphite(), bulk("Cu"), graphite(5.9), mx2("MoS2", vacuum=8.0), graphite() * (3, 3, 1)]
    crystals = [plain_crystal(each) for each in atoms]
    whole = build_graph(crystals, ["PBE"] * 5, NetworkConfig())
    alone = [build_graph([crystal], ["PBE"], NetworkConfig()) for crystal in crystals]
    assert whole.neighbors.tolist() == [int(graph.neighbors[0]) for graph in alone]
    counts = torch.bincount(whole.edge_batch)
    assert counts.tolist() == [len(graph.edge_lengths) for graph in alone]
