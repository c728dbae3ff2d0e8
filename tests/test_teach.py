"""Building inputs, relaxing them side by side, and the rows that come out; EMT is the teacher."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, mx2
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from e3nn import o3

from deeprelax_ase.datasets.pair_file import PairFile
from deeprelax_ase.datasets.validate_rows import find_faults
from deeprelax_ase.datasets.write_pairs import reduced_composition, split_of
from recipes import teach
from recipes.teaching import nequix
from recipes.teaching.chemistry import UnusableError, count_pieces, find_voids, needs_u
from recipes.teaching.graphs import build_graph
from recipes.teaching.hosts import Host, Hosts
from recipes.teaching.inputs import Input, cube_like_supercell, fixed_atoms
from recipes.teaching.kinds import KINDS, teach_one
from recipes.teaching.pairs import make_row
from recipes.teaching.potentials import NEQUIX, NEQUIX_D3, TENSORNET, Response, from_calculator
from recipes.teaching.relaxing import Relaxed, Request, run_jobs
from recipes.teaching.sheets import layer_normal
from recipes.teaching.store import merge, read_lines, to_line
from recipes.teaching.surfaces import THICKNESS, adsorb, cut_slab, fix_bottom

_TRIES = 60


def _host(name, atoms, group=225, functional="PBE"):
    return Host(name, functional, group, atoms)


@pytest.fixture(scope="module")
def hosts():
    """A few crystals of elements that EMT knows, and some that it does not."""
    crystals = [
        bulk("Cu"),
        bulk("Al"),
        bulk("Ag"),
        bulk("NiAl", "cesiumchloride", a=2.9),
        bulk("CuAu", "rocksalt", a=4.6),
        bulk("MgO", "rocksalt", a=4.25),
        bulk("NaCl", "rocksalt", a=5.6),
        bulk("FeO", "rocksalt", a=4.3),
        bulk("ZnS", "zincblende", a=5.4),
        bulk("AlN", "wurtzite", a=3.1, c=5.0),
    ]
    rutile = Atoms(
        "Ti2O4",
        cell=[4.6, 4.6, 2.96],
        scaled_positions=[
            *[(0, 0, 0), (0.5, 0.5, 0.5), (0.305, 0.305, 0), (0.695, 0.695, 0)],
            *[(0.195, 0.805, 0.5), (0.805, 0.195, 0.5)],
        ],
        pbc=True,
    )
    fluoride = rutile.copy()
    fluoride.set_chemical_symbols("Fe2F4")
    layered = mx2("MoS2", a=3.18, thickness=3.13, vacuum=1.7)
    layered.pbc = True
    lithium = bulk("LiFO", "fluorite", a=5.0)
    sheets = []
    for formula in ("MoS2", "WSe2", "SnTe2"):
        sheet = mx2(formula, a=3.3, thickness=3.2, vacuum=9)
        sheet.pbc = [True, True, False]
        sheets.append(_host(f"sheet-{formula}", sheet, 78, "optB88-vdW"))
    sheet = mx2("TiC2", a=3.1, thickness=2.4, vacuum=9)
    sheet.pbc = [True, True, False]
    sheets.append(_host("mxene", sheet, 78))
    whole = [
        _host(f"mp-{k}", atoms)
        for k, atoms in enumerate([*crystals, rutile, fluoride, layered, lithium], start=1)
    ]
    return Hosts(tuple(whole), tuple(sheets), frozenset())


@pytest.fixture(scope="module")
def emt():
    return from_calculator(EMT())


def _build(hosts, kind, index):
    """The input of a kind, its host taken as relaxed already."""
    job = KINDS[kind].build(hosts, np.random.default_rng([1, index]))
    try:
        request = next(job)
        while True:
            request = job.send(Relaxed(request.atoms, 0, ""))
    except StopIteration as stop:
        return stop.value


def _some(hosts, kind, wanted=6):
    """The first inputs of a kind that can be built, with their indices."""
    built = []
    for index in range(_TRIES):
        try:
            built.append((index, _build(hosts, kind, index)))
        except UnusableError:
            continue
        if len(built) == wanted:
            break
    return built


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_are_what_a_user_may_hand_over(hosts, kind):
    built = _some(hosts, kind)
    assert len(built) >= 3
    for _, made in built:
        atoms = made.atoms
        assert np.linalg.det(atoms.cell.array) > 0
        assert atoms.get_all_distances(mic=True)[np.triu_indices(len(atoms), 1)].min() > 0.6
        assert made.potential in (TENSORNET, NEQUIX, NEQUIX_D3)
        assert atoms.pbc[:2].all()
        if not atoms.pbc[2]:
            assert np.allclose(atoms.cell.array[2, :2], 0)
            assert np.allclose(atoms.cell.array[:2, 2], 0)
            assert atoms.cell.array[2, 2] - np.ptp(atoms.positions[:, 2]) > 14.5
            assert made.cell in ("held", "in_plane")
        else:
            assert made.cell in ("held", "free")
        if made.fixed.any():
            assert made.cell == "held"
            assert not made.fixed.all()
        assert made.functional == ("PBE-D3" if made.potential == NEQUIX_D3 else "PBE")
        if made.potential == TENSORNET and kind != "adsorbates":
            assert not needs_u(atoms.numbers)


@pytest.mark.parametrize("kind", KINDS)
def test_an_input_depends_on_its_index_alone(hosts, kind):
    built = _some(hosts, kind, 3)
    for index, made in reversed(built):
        again = _build(hosts, kind, index)
        assert again.variant == made.variant
        assert np.array_equal(again.atoms.positions, made.atoms.positions)
        assert np.array_equal(again.atoms.cell.array, made.atoms.cell.array)
    assert len({str(made.atoms.positions) for _, made in built}) == len(built)


def test_slabs_are_as_thick_as_said_and_keep_the_distances_of_the_bulk():
    crystal = bulk("Cu")
    for seed in range(8):
        rng = np.random.default_rng(seed)
        try:
            slab, _ = cut_slab(crystal, rng, most=60, edge=2.5)
        except UnusableError:
            continue
        assert THICKNESS[0] <= np.ptp(slab.positions[:, 2]) <= THICKNESS[1]
        near = slab.get_all_distances(mic=True) + 10 * np.eye(len(slab))
        assert np.allclose(near.min(axis=1), 3.61 / 2**0.5, atol=0.01) or len(slab) < 6
        fix_bottom(slab, rng)
        fixed = fixed_atoms(slab)
        heights = slab.positions[:, 2]
        assert heights[fixed].max() < heights[~fixed].min()


@pytest.mark.parametrize("species", ["H", "CO", "H2O"])
def test_adsorbates_touch_the_surface_and_are_whole(species):
    slab = fcc111("Cu", (2, 2, 3), vacuum=8)
    slab.set_constraint(FixAtoms(range(4)))
    atoms, _ = adsorb(slab, species, np.random.default_rng(0))
    added = atoms[len(slab) :]
    assert added.get_chemical_formula("metal") in (species, "OH2", "H2O")
    heights = added.positions[:, 2] - slab.positions[:, 2].max()
    assert 0 < heights[0] < 3
    assert fixed_atoms(atoms).tolist() == [True] * 4 + [False] * (len(atoms) - 4)


def test_voids_of_rock_salt_are_its_tetrahedra():
    crystal = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    voids, room = find_voids(crystal, spacing=0.2)
    scaled = voids @ np.linalg.inv(crystal.cell.array)
    assert np.allclose(np.abs(scaled % 0.5 - 0.25), 0, atol=0.04)
    assert np.allclose(room, room[0], atol=0.05)


def test_supercells_are_square_and_hold_the_same_crystal():
    crystal = bulk("MgO", "rocksalt", a=4.25)
    supercell = cube_like_supercell(crystal, 40, 80, np.random.default_rng(0))
    assert 40 <= len(supercell) <= 80
    assert supercell.get_volume() / len(supercell) == pytest.approx(crystal.get_volume() / 2)
    lengths = supercell.cell.lengths()
    assert lengths.max() / lengths.min() < 2


def test_layers_are_told_from_frameworks(hosts):
    layered = next(host for host in hosts.bulk if "MoS2" in str(host.atoms.symbols))
    normal = layer_normal(layered.atoms)
    assert normal is not None
    assert np.allclose(np.abs(normal), [0, 0, 1])
    assert layer_normal(bulk("Cu")) is None


def test_side_by_side_is_as_one_by_one(emt):
    structures = []
    for seed, cell in ((0, "free"), (1, "held"), (2, "free")):
        atoms = bulk("Cu", cubic=True) * (1, 1, 2)
        atoms.rattle(0.1, seed=seed)
        atoms.set_cell(atoms.cell.array * (1 + 0.01 * seed), scale_atoms=True)
        structures.append((atoms, cell))

    def job(atoms, cell):
        return (yield Request(atoms, cell, TENSORNET))

    def run(which):
        jobs = [(k, job(*structures[k])) for k in which]
        return dict(run_jobs(jobs, {TENSORNET: emt}, atoms_at_once=16))

    together = run(range(3))
    for k in range(3):
        alone = run([k])[k]
        assert alone.steps == together[k].steps > 0
        assert np.allclose(alone.atoms.positions, together[k].atoms.positions)
        assert not alone.trouble


def test_a_relaxation_ends_where_that_of_ase_ends(emt):
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=3)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.02), scale_atoms=True)

    def job():
        return (yield Request(atoms, "free", TENSORNET, fmax=1e-3))

    ((_, relaxed),) = run_jobs([(0, job())], {TENSORNET: emt}, 10)
    reference = atoms.copy()
    reference.calc = EMT()
    BFGS(FrechetCellFilter(reference), logfile=None).run(fmax=1e-3)
    assert relaxed.atoms.get_volume() == pytest.approx(reference.get_volume(), rel=1e-3)


def _columns(row):
    names = ("numbers", "cell", "positions", "relaxed_cell", "relaxed_positions", "pbc")
    return {name: [np.asarray(row[name])] for name in names}


def test_rows_of_held_cells_leave_fixed_atoms_where_they_are():
    slab = fcc111("Cu", (2, 2, 4), vacuum=8)
    slab.pbc = [True, True, False]
    slab.set_constraint(FixAtoms(range(8)))
    made = Input(slab, "held", NEQUIX, _host("mp-1", bulk("Cu")), "slab")
    relaxed = slab.copy()
    relaxed.positions[8:] += [0.01, 0.0, -0.05]
    row = make_row(made, relaxed, "slabs", 0, 3)
    before, after = row["positions"].reshape(-1, 3), row["relaxed_positions"].reshape(-1, 3)
    assert np.array_equal(before[:8], after[:8])
    assert np.allclose(after[8:] - before[8:], [0.01, 0.0, -0.05], atol=1e-5)
    assert np.array_equal(row["cell"], row["relaxed_cell"])
    assert row["cell_free"] is False
    assert row["fixed"] == [True] * 8 + [False] * 8
    assert row["pbc"] == [True, True, False]
    assert not find_faults(_columns(row))


def test_rows_of_free_cells_are_turned_back_and_centred():
    crystal = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    made = Input(crystal, "free", TENSORNET, _host("mp-1", crystal), "as built")
    relaxed = crystal.copy()
    relaxed.positions += [0.3, 0.2, 0.1]
    relaxed.positions[0] += [0.1, 0, 0]
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    turn *= np.linalg.det(turn)
    shape = np.eye(3) + np.array([[0.03, 0.02, 0], [0, -0.02, 0.01], [0, 0, 0.01]])
    relaxed.set_cell(relaxed.cell.array @ shape @ turn, scale_atoms=True)
    row = make_row(made, relaxed, "ions", 0, 3)
    cell = row["cell"].reshape(3, 3).astype(float)
    relaxed_cell = row["relaxed_cell"].reshape(3, 3).astype(float)
    deformation = np.linalg.solve(cell, relaxed_cell)
    assert np.allclose(deformation, deformation.T, atol=1e-5)
    moves = row["relaxed_positions"].reshape(-1, 3) @ np.linalg.inv(relaxed_cell)
    moves -= row["positions"].reshape(-1, 3) @ np.linalg.inv(cell)
    assert np.allclose(moves.mean(axis=0), 0, atol=1e-6)
    assert np.log(np.linalg.det(deformation)) == pytest.approx(row["log_volume_ratio"], abs=1e-5)
    ours = Atoms("Na4Cl4", cell=relaxed_cell, pbc=True)
    ours.positions = row["relaxed_positions"].reshape(-1, 3)
    mine, theirs = (atoms.get_all_distances(mic=True) for atoms in (ours, relaxed))
    assert np.allclose(np.sort(mine.ravel()), np.sort(theirs.ravel()), atol=1e-4)


@pytest.mark.parametrize(
    ("move", "reason"),
    [
        (lambda a: a.positions.__setitem__(-1, a.positions[-1] + [0, 0, 5.0]), "flew off"),
        (lambda a: a.positions.__setitem__(-1, a.positions[0] + [0, 0, 0.4]), "on top of"),
        (lambda a: a.positions.__iadd__(np.linspace(0, 9, len(a))[:, None]), "over 2 Å"),
    ],
)
def test_filters_say_why(move, reason):
    slab = fcc111("Cu", (2, 2, 3), vacuum=9)
    slab.pbc = [True, True, False]
    atoms, _ = adsorb(slab, "O", np.random.default_rng(1))
    made = Input(atoms, "held", TENSORNET, _host("mp-1", bulk("Cu")), "O", adsorbed=1)
    relaxed = atoms.copy()
    move(relaxed)
    with pytest.raises(UnusableError, match=reason):
        make_row(made, relaxed, "adsorbates", 0, 1)


def test_pieces_are_counted():
    two = Atoms("CuCu", positions=[[0, 0, 0], [0, 0, 9]], cell=[20, 20, 20], pbc=True)
    assert count_pieces(two) == (2, 1)
    assert count_pieces(bulk("Cu") * (2, 2, 2)) == (1, 8)


def test_what_is_held_back_is_not_taught(hosts):
    kept = Hosts(hosts.bulk, hosts.sheets, frozenset())
    index, made = _some(kept, "slabs", 1)[0]
    formula = reduced_composition(made.atoms.numbers)
    held = Hosts(hosts.bulk, hosts.sheets, frozenset({formula}))
    job = teach_one("slabs", index, held, 1)
    # The same draw as `_build`'s is not needed: any input of this formula is refused.
    try:
        request = next(job)
        while True:
            request = job.send(Relaxed(request.atoms, 0, ""))
    except StopIteration as stop:
        numbers = stop.value.get("numbers")
        assert numbers is None or reduced_composition(np.array(numbers)) != formula


@pytest.fixture
def command(hosts, emt, monkeypatch, tmp_path):
    """Run the command line with EMT, slabs of its metals only."""
    metals = tuple(h for h in hosts.bulk if set(h.numbers.tolist()) <= {13, 28, 29, 47, 79})
    few = Hosts(metals, hosts.sheets, frozenset())
    monkeypatch.setattr(teach, "load_hosts", lambda _: few)
    monkeypatch.setattr(teach, "load_held_back", lambda _: frozenset())
    asked = []

    def counted(structures):
        asked.append(len(structures))
        return emt(structures)

    monkeypatch.setattr(teach, "load_potentials", lambda *_: {TENSORNET: counted, NEQUIX: counted})

    def run(*more):
        asked.clear()
        given = ["--data", str(tmp_path), "--potentials", str(tmp_path)]
        teach.main([*more, *given, "--out", str(tmp_path / "out")])
        return len(asked)

    return run


def test_an_interrupted_run_goes_on_and_makes_nothing_twice(command, tmp_path):
    command("slabs", "--count", "4")
    path = tmp_path / "out" / "pairs-0-of-1.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 4
    whole = {json.loads(line)["index"]: line for line in lines}
    path.write_text("".join(lines[:2]) + lines[2][:50])
    command("slabs", "--count", "4")
    again = {line["index"]: line for line in read_lines(tmp_path / "out")}
    assert sorted(again) == [0, 1, 2, 3]
    made_again = set(range(4)) - {json.loads(line)["index"] for line in lines[:2]}
    for index in made_again:
        assert again[index] == json.loads(whole[index])
    assert command("slabs", "--count", "4") == 0


def test_merged_rows_are_pairs_that_training_reads(command, tmp_path):
    command("slabs", "--count", "6")
    counts = merge(tmp_path / "out", tmp_path / "merged")
    assert sum(counts.values()) == 6
    table = pq.read_table(tmp_path / "merged" / "slabs.parquet").to_pylist()
    assert len(table) == counts["slabs"] > 0
    for row in table:
        assert row["potential"] == NEQUIX
        assert len(row["fixed"]) == len(row["numbers"])
        assert row["split"] in ("train", "val", "test")
    splits = {row["split"] for row in table}
    assert len(PairFile(tmp_path / "merged" / "slabs.parquet", splits.pop())) > 0


def test_splits_follow_the_host(hosts):
    crystal = hosts.bulk[0]
    made = Input(crystal.atoms * (2, 2, 2), "held", TENSORNET, crystal, "as built")
    row = make_row(made, made.atoms.copy(), "defects", 0, 0)
    assert row["split"] == split_of(crystal.numbers)


def test_a_line_keeps_single_precision():
    values = np.random.default_rng(0).normal(size=20).astype(np.float32)
    line = json.loads(to_line("slabs", 1, {"cell": values}))
    assert np.array_equal(np.asarray(line["cell"], dtype=np.float32), values)


@pytest.fixture
def product():
    """A tensor product as in Nequix, and a sort that changes nothing."""
    inputs = o3.Irreps("4x0e + 3x1o + 2x2e")
    harmonics = o3.Irreps.spherical_harmonics(2)
    outputs, instructions = [], []
    for i, (mul, first) in enumerate(inputs):
        for j, (_, second) in enumerate(harmonics):
            for third in first * second:
                if third in inputs:
                    instructions.append((i, j, len(outputs), "uvu", True))
                    outputs.append((mul, third))
    outputs = o3.Irreps(outputs)
    whole = o3.TensorProduct(
        inputs, harmonics, outputs, instructions, shared_weights=False, internal_weights=False
    )

    class Sort:
        slices_sorted = outputs.slices()

    return whole, nequix._Product(whole, Sort, 2)


@pytest.mark.parametrize("is_compiled", [True, False])
def test_sums_over_neighbors_are_those_of_e3nn(product, is_compiled, monkeypatch):
    whole, ours = product
    if is_compiled and nequix._compiled() is None:
        pytest.skip("no compiler")
    if not is_compiled:
        monkeypatch.setattr(nequix, "_compiled", lambda: None)
    torch.manual_seed(0)
    structures = [
        bulk("Cu", cubic=True),
        bulk("NaCl", "rocksalt", a=5.6),
        fcc111("Cu", (1, 1, 3), vacuum=8),
    ]
    graph = build_graph(structures, 4.0, "cpu")
    vectors = torch.randn(len(graph.centers), 3)
    directed = torch.cat([vectors, -vectors])
    centers = torch.cat([graph.centers, graph.ends])
    ends = torch.cat([graph.ends, graph.centers])
    features = torch.randn(len(graph.neighbors), whole.irreps_in1.dim)
    weights = torch.randn(len(vectors), whole.weight_numel)
    direction = torch.randn(len(features), whole.irreps_out.dim)

    def harmonics(of):
        return o3.spherical_harmonics([0, 1, 2], of, normalize=True)

    def expected(f, w, v):
        both = torch.cat([v, -v])
        messages = whole(f[ends], harmonics(both), torch.cat([w, w]))
        return torch.zeros_like(direction).index_add(0, centers, messages)

    def found(f, w, v):
        return ours(f, w, harmonics(v), graph)

    assert len(directed) == (graph.pairs < len(vectors)).sum()
    results = []
    for function in (expected, found):
        given = [values.clone().requires_grad_() for values in (features, weights, vectors)]
        summed = function(*given)
        results.append([summed, *torch.autograd.grad((summed * direction).sum(), given)])
    for mine, theirs in zip(*results, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-4, rtol=1e-4)


def test_forces_without_bounds_end_a_relaxation():
    def mad(structures):
        return [Response(0.0, np.full((len(a), 3), np.nan), np.zeros((3, 3))) for a in structures]

    def job():
        return (yield Request(bulk("Cu"), "held", TENSORNET))

    ((_, relaxed),) = run_jobs([(0, job())], {TENSORNET: mad}, 10)
    assert "without bounds" in relaxed.trouble


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["slab"], "no kind 'slab': choose from slabs"),
        (["--shard", "foo"], "--shard is foo: it has to be such as 0/4"),
        (["--shard", "4/4"], "--shard is 4/4"),
        (["--count", "0"], "--count is 0"),
        ([], "--potentials has to name the folder"),
        (["--potentials", "nowhere"], "--potentials has to name the folder"),
        (["--data", "nowhere", "--potentials", "."], "nowhere/relaxed.parquet"),
        (["--merge", "there"], "holds no finished pairs"),
    ],
)
def test_wrong_arguments_are_told_before_anything_is_made(tmp_path, arguments, words):
    given = ["--data", str(tmp_path), "--out", str(tmp_path / "out"), *arguments]
    with pytest.raises(SystemExit, match=words):
        teach.main(given)
    assert not (tmp_path / "out").exists()
