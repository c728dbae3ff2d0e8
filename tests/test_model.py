from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from conftest import SMALL
from e3nn import o3
from hypothesis import given
from strategies import crystals, rotations

from deeprelax_ase.network.graph import build_graph
from deeprelax_ase.network.message_passing import Edges, Message, TensorUpdate, Update
from deeprelax_ase.network.offset_encoding import OffsetEncoding
from deeprelax_ase.network.paegnn import PaEGNN
from deeprelax_ase.network.radial_basis import RadialBasis, covalent_radii, polynomial_envelope
from deeprelax_ase.network.rank2_tensors import BASIS, components_of, matrices_of, quadrupoles
from deeprelax_ase.structures.crystal import Crystal

TOLERANCE = {"atol": 1e-9, "rtol": 1e-7}


def predict(network, *some, functional="PBE"):
    graph = build_graph(some, [functional] * len(some), network.config)
    with torch.no_grad():
        return graph, network(graph)


@pytest.fixture(scope="module")
def with_offsets():
    torch.manual_seed(0)
    return PaEGNN(SMALL.model_copy(update={"ucoe": True})).double().eval()


@given(crystal=crystals(), rotation=rotations())
def test_rotation_and_reflection(network, crystal, rotation):
    turned = replace(crystal, positions=crystal.positions @ rotation, cell=crystal.cell @ rotation)
    (_, here), (_, there) = predict(network, crystal), predict(network, turned)
    matrix = torch.from_numpy(rotation)
    torch.testing.assert_close(there.displacements, here.displacements @ matrix, **TOLERANCE)
    torch.testing.assert_close(there.strains, matrix.T @ here.strains @ matrix, **TOLERANCE)
    for name in ("distances", "distance_log_scales", "displacement_log_scales"):
        # The neighbour list may list pairs in another order.
        one, other = (getattr(p, name).sort().values for p in (here, there))
        torch.testing.assert_close(other, one, **TOLERANCE)
    torch.testing.assert_close(there.strain_log_scales, here.strain_log_scales, **TOLERANCE)


@given(crystal=crystals())
def test_translation_and_wrapping(network, crystal):
    images = (np.arange(3 * len(crystal)).reshape(-1, 3) % 3 - 1) * crystal.pbc
    moved = replace(crystal, positions=crystal.positions + images @ crystal.cell + [0.3, 1.1, -2])
    (_, here), (_, there) = predict(network, crystal), predict(network, moved)
    torch.testing.assert_close(there.displacements, here.displacements, **TOLERANCE)
    torch.testing.assert_close(there.strains, here.strains, **TOLERANCE)


@given(crystal=crystals())
def test_permutation(network, crystal):
    order = np.arange(len(crystal))[::-1].copy()
    other = replace(crystal, numbers=crystal.numbers[order], positions=crystal.positions[order])
    (_, here), (_, there) = predict(network, crystal), predict(network, other)
    torch.testing.assert_close(there.displacements, here.displacements[order.copy()], **TOLERANCE)
    torch.testing.assert_close(there.strains, here.strains, **TOLERANCE)


@given(crystal=crystals(periodic=[True] * 3))
def test_choice_of_cell(network, crystal):
    other = replace(crystal, cell=np.array([[1, 1, 0], [0, 1, 0], [2, -1, 1]]) @ crystal.cell)
    (_, here), (_, there) = predict(network, crystal), predict(network, other)
    torch.testing.assert_close(there.displacements, here.displacements, **TOLERANCE)
    torch.testing.assert_close(there.strains, here.strains, **TOLERANCE)


def test_offset_encoding_holds_in_the_canonical_cell(with_offsets, rng):
    # Triclinic: where the lattice has symmetry, so has the choice of its reduced cell.
    cell = np.array([[4.0, 0.1, 0.3], [0.5, 4.7, 0.2], [0.4, 0.9, 5.6]])
    crystal = Crystal(
        np.array([8, 12, 22]), rng.uniform(size=(3, 3)) @ cell, cell, np.array([True] * 3)
    )
    other = replace(crystal, cell=np.array([[1, 1, 0], [0, 1, 0], [2, -1, 1]]) @ cell)
    (_, here), (_, there) = predict(with_offsets, crystal), predict(with_offsets, other)
    torch.testing.assert_close(there.strains, here.strains, **TOLERANCE)
    torch.testing.assert_close(there.displacements, here.displacements, **TOLERANCE)


@given(crystal=crystals(max_atoms=4))
def test_supercell(network, crystal):
    if not crystal.pbc[0]:
        return
    double = Crystal(
        np.tile(crystal.numbers, 2),
        np.concatenate([crystal.positions, crystal.positions + crystal.cell[0]]),
        crystal.cell * np.array([[2], [1], [1]]),
        crystal.pbc,
    )
    (_, here), (_, there) = predict(network, crystal), predict(network, double)
    torch.testing.assert_close(there.displacements, here.displacements.repeat(2, 1), **TOLERANCE)
    torch.testing.assert_close(there.strains, here.strains, **TOLERANCE)
    torch.testing.assert_close(there.strain_weights, 2 * here.strain_weights, **TOLERANCE)


@given(some=crystals(), other=crystals())
def test_batch_equals_single(network, some, other):
    _, both = predict(network, some, other)
    _, one = predict(network, some)
    _, two = predict(network, other)
    for field in fields(both):
        parts = torch.cat([getattr(one, field.name), getattr(two, field.name)])
        torch.testing.assert_close(getattr(both, field.name), parts, **TOLERANCE)


@given(crystal=crystals())
def test_what_cannot_be_strained_is_not(network, crystal):
    _, prediction = predict(network, crystal)
    strain = prediction.strains[0].numpy()
    projector = crystal.strain_projector()
    np.testing.assert_allclose(projector @ strain @ projector, strain, atol=1e-12)
    np.testing.assert_allclose(strain, strain.T, atol=1e-12)
    assert prediction.displacements.mean(dim=0).abs().max() < 1e-12


def test_functional_matters(network, rng):
    crystal = Crystal(
        np.array([8, 12]), rng.uniform(size=(2, 3)) * 4, np.eye(3) * 4.5, np.array([True] * 3)
    )
    _, here = predict(network, crystal, functional="PBE")
    _, there = predict(network, crystal, functional="PBEsol")
    assert (here.strains - there.strains).abs().max() > 1e-4


def test_a_neighbour_leaving_the_cutoff_leaves_no_step(network):
    """The prediction is smooth where an edge appears."""
    cell, pbc = np.eye(3), np.array([False] * 3)
    strains = []
    for distance in (5.9998, 5.9999, 6.0001):
        positions = np.array([[0, 0, 0], [2.0, 0, 0], [0, distance, 0]])
        _, prediction = predict(network, Crystal(np.array([8, 12, 22]), positions, cell, pbc))
        strains.append(prediction.displacements)
    assert (strains[2] - strains[1]).abs().max() < 10 * (strains[1] - strains[0]).abs().max() + 1e-6


def test_every_edge_points_from_its_target_to_its_source(rng):
    """Both ways of each pair; weights that were trained with one convention are lost in another."""
    places = rng.uniform(0, 3, size=(5, 3))
    molecule = Crystal(np.full(5, 8), places, np.eye(3), np.zeros(3, dtype=bool))
    graph = build_graph([molecule], ["PBE"], SMALL)
    count = len(graph.edge_lengths)
    directions = graph.edge_vectors / graph.edge_lengths[:, None]
    edges = Edges.of_pairs(
        graph.edge_index, directions, torch.zeros(1, count, 1), torch.ones(count)
    )
    apart = torch.from_numpy(places)[edges.sources] - torch.from_numpy(places)[edges.targets]
    torch.testing.assert_close(edges.directions, apart / apart.norm(dim=1, keepdim=True))
    pairs = list(zip(edges.targets.tolist(), edges.sources.tolist(), strict=True))
    assert sorted(pairs) == [(i, j) for i in range(5) for j in range(5) if i != j]


def test_message_is_the_tensor_product_of_e3nn():
    """Our tensor algebra equals e3nn's TensorProduct with the edge's spherical harmonics."""
    torch.manual_seed(0)
    features, of_order_2, edges, atoms = 5, 3, 8, 4
    message = Message(features, 3, 4.0, of_order_2).double()
    scalars = torch.randn(atoms, features).double()
    vectors = torch.randn(atoms, 3, features).double()
    tensors = torch.randn(atoms, 5, of_order_2).double()
    targets, sources = torch.randint(0, atoms, (2, edges))
    directions = torch.nn.functional.normalize(torch.randn(edges // 2, 3).double(), dim=1)
    directions = torch.cat([directions, -directions])
    stretches = quadrupoles(directions)
    codes = torch.randn(2, edges // 2, 3).double()
    envelope = torch.rand(edges // 2).double()
    filters = (message.filter(codes) * envelope[:, None]).flatten(0, 1)
    both = [Edges(targets, sources, directions, codes, envelope, stretches)]
    ours = message(scalars, vectors, tensors, both)
    still = message(scalars, None, None, both)
    zeros = message(scalars, torch.zeros_like(vectors), torch.zeros_like(tensors), both)
    torch.testing.assert_close(still, zeros)

    irreps = o3.Irreps(f"{features}x0e + {of_order_2}x0e + {features}x1o + {of_order_2}x2e")
    product = o3.TensorProduct(
        irreps,
        "0e + 1o + 2e",
        message.irreps_out,
        # v_j times 1, x_j times u, x_j times 1, t_j times 1, x_j times uu
        [
            (2, 0, 1, "uvu", True),
            (0, 1, 1, "uvu", True),
            (0, 0, 0, "uvu", True),
            (3, 0, 2, "uvu", True),
            (1, 2, 2, "uvu", True),
        ],
        irrep_normalization="none",
        path_normalization="none",
        shared_weights=False,
        internal_weights=False,
    ).double()
    harmonics = o3.spherical_harmonics([0, 1, 2], directions, normalize=True, normalization="norm")
    torch.testing.assert_close(stretches * 1.5**0.5, harmonics[:, 4:])
    sent = message.source(message.norm(scalars))[sources] * filters
    along, outward, scalar, same, stretch = sent.split(message.widths, dim=1)
    # e3nn keeps vectors as (features, 3); the x_j of a path is in its weights.
    ones = torch.ones(edges, features + of_order_2).double()
    arrows, dyads = (each[sources].transpose(1, 2).flatten(1) for each in (vectors, tensors))
    weights = torch.cat([along, outward, scalar, same, stretch / 1.5**0.5], dim=1)
    theirs = product(torch.cat([ones, arrows, dyads], dim=1), harmonics, weights)
    summed = torch.zeros(atoms, theirs.shape[1]).double().index_add(0, targets, theirs)
    first, second, third = (summed * message.scale).split(
        [features, 3 * features, 5 * of_order_2], dim=1
    )
    torch.testing.assert_close(ours[0], first)
    # e3nn's Wigner 3j symbols have norm 1: that of a vector and a scalar is delta / sqrt 3.
    expected = second.view(atoms, features, 3).transpose(1, 2) * 3**0.5
    torch.testing.assert_close(ours[1], expected)
    expected = third.view(atoms, of_order_2, 5).transpose(1, 2) * 5**0.5
    torch.testing.assert_close(ours[2], expected)


def test_tensors_are_matrices_and_back(rng):
    matrices = torch.from_numpy(rng.normal(size=(4, 3, 3, 2)))
    traces = matrices.diagonal(dim1=1, dim2=2).sum(dim=2)
    identity = torch.eye(3, dtype=torch.float64)[:, :, None]
    expected = (matrices + matrices.transpose(1, 2)) / 2 - traces[:, None, None] * identity / 3
    back = matrices_of(components_of(matrices))
    torch.testing.assert_close(back, expected)
    torch.testing.assert_close(
        back.flatten(1).norm(dim=1), components_of(matrices).flatten(1).norm(dim=1)
    )


def test_mixing_is_the_linear_of_e3nn():
    torch.manual_seed(0)
    features = 6
    update = Update(features).double()
    vectors = torch.randn(3, 3, features).double()
    linear = o3.Linear(f"{features}x1o", f"{2 * features}x1o").double()
    with torch.no_grad():
        linear.weight.copy_((update.mix.weight.T * features**0.5).flatten())
    theirs = linear(vectors.transpose(1, 2).flatten(1)).view(3, 2 * features, 3).transpose(1, 2)
    torch.testing.assert_close(update.mix(vectors), theirs)


def test_basis_of_tensors_is_that_of_e3nn():
    theirs = 5**0.5 * o3.wigner_3j(1, 1, 2, dtype=torch.float64).reshape(9, 5)
    torch.testing.assert_close(BASIS, theirs, rtol=0, atol=1e-15)


def test_irreps_transform_as_declared():
    torch.manual_seed(0)
    rotation = o3.rand_matrix().double()
    scalars, vectors = torch.randn(2, 4).double(), torch.randn(2, 3, 4).double()
    tensors = torch.randn(2, 5, 3).double()
    turn = o3.Irrep("2e").D_from_matrix(rotation).double()
    turned_vectors = torch.einsum("ab,nbf->naf", rotation, vectors)
    turned_tensors = torch.einsum("ab,nbf->naf", turn, tensors)

    def flat(scalars, *rest):
        return torch.cat([scalars, *(x.transpose(1, 2).flatten(1) for x in rest)], dim=1)

    update, with_tensors = Update(4).double(), TensorUpdate(4, 3).double()
    for module, before, after in (
        (update, update(scalars, vectors), update(scalars, turned_vectors)),
        (
            with_tensors,
            with_tensors(scalars, vectors, tensors),
            with_tensors(scalars, turned_vectors, turned_tensors),
        ),
    ):
        wigner = module.irreps_out.D_from_matrix(rotation).double()
        tolerance = {"atol": 1e-5, "rtol": 1e-5}  # of the matrix
        torch.testing.assert_close(flat(*after), flat(*before) @ wigner.T, **tolerance)


def test_offset_codes_are_those_of_the_paper():
    encoding = OffsetEncoding(128)
    offset = torch.tensor([[1, 0, -2], [7, -9, 0]])
    k = [(1 + 2) + 5 * (0 + 2) + 25 * (-2 + 2), (2 + 2) + 5 * (-2 + 2) + 25 * (0 + 2)]
    codes = encoding(offset)
    for row, place in enumerate(k):
        for m in (0, 5, 63):
            angle = torch.tensor(place * 10_000 ** (-2 * m / 128))
            torch.testing.assert_close(codes[row, 2 * m], angle.sin(), atol=1e-5, rtol=0)
            torch.testing.assert_close(codes[row, 2 * m + 1], angle.cos(), atol=1e-5, rtol=0)
    assert len(torch.unique(encoding.codes, dim=0)) == 125


def test_envelope_vanishes_smoothly():
    distances = torch.tensor([0.0, 5.9999, 6.0, 6.5], dtype=torch.float64, requires_grad=True)
    values = polynomial_envelope(distances, 6.0, 5)
    (slope,) = torch.autograd.grad(values.sum(), distances)
    torch.testing.assert_close(values, torch.tensor([1.0, 0, 0, 0]).double(), atol=1e-12, rtol=0)
    assert slope.abs().max() < 1e-6


def test_radial_basis_has_no_denormals():
    basis = RadialBasis(32, 24, 6.0, 5, 119)
    numbers = torch.full((100,), 8)
    values = basis(torch.linspace(0.3, 6, 100), numbers, numbers)
    assert values.min() > torch.finfo(torch.float32).tiny
    assert values.shape == (100, 56)


def test_covalent_radii_are_the_published_ones():
    radii = covalent_radii(119)
    for number, radius in ((1, 0.31), (6, 0.76), (8, 0.66), (26, 1.32), (55, 2.44), (96, 1.69)):
        assert radii[number] == pytest.approx(radius)
