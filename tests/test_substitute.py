import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk, mx2
from ase.spacegroup import crystal
from datasets import write_pairs
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.io.ase import AseAtomsAdaptor
from typer.testing import CliRunner

from deeprelax_ase.cli import app
from deeprelax_ase.datasets.pair_file import PairFile
from deeprelax_ase.datasets.substitution import substitute
from deeprelax_ase.structures.ase_adapter import atoms_of

ROCKSALTS = {"MgO": 4.2, "CaO": 4.8, "NaCl": 5.2, "LiF": 4.0, "BaO": 5.5}
RUTILES = {"Ti": (4.6, 2.96, 0.305), "Sn": (4.74, 3.19, 0.307), "Ge": (4.4, 2.86, 0.306)}
SPLITS = ("train", "train", "train", "val", "test")


def rutile(metal, a, c, x):
    return crystal(
        (metal, "O"),
        [(0, 0, 0), (x, x, 0)],
        spacegroup=136,
        cellpar=[a, a, c, 90, 90, 90],
    )


def crystals():
    for name, a in ROCKSALTS.items():
        yield bulk(name, "rocksalt", a=a)
    for metal, parameters in RUTILES.items():
        yield rutile(metal, *parameters)


def write_relaxed(path, structures=None):
    rng = np.random.default_rng(0)
    table = []
    for number, perfect in enumerate(structures or crystals()):
        # The same crystal in another orientation, order and origin.
        atoms = perfect[rng.permutation(len(perfect))]
        if atoms.pbc.all():
            atoms.rotate(30 * number, (1, 2, 3), rotate_cell=True)
            atoms.positions += rng.uniform(0, 3, size=3)
        table.append(
            {
                "id": f"c{number}",
                "functional": "PBE",
                "split": SPLITS[number % 5],
                "numbers": atoms.numbers.tolist(),
                "cell": atoms.cell[:].ravel().tolist(),
                "positions": atoms.positions.ravel().tolist(),
                "pbc": atoms.pbc.tolist(),
            }
        )
    pq.write_table(pa.Table.from_pylist(table), path)
    return path


@pytest.fixture
def pairs(tmp_path):
    return list(substitute(write_relaxed(tmp_path / "r.parquet"), neighbors=8))


def test_pairs_join_isostructural_crystals_alone(pairs):
    joined = {tuple(row.id.split("<-")) for row in pairs}
    # Four other rocksalts each, of which those in train may be the input; likewise for rutiles.
    rocksalts = {(t, s) for t in range(5) for s in range(3) if s != t}
    rutiles = {(t, s) for t in (5, 6, 7) for s in (5, 6, 7) if s != t}
    assert joined == {(f"c{t}", f"c{s}") for t, s in rocksalts | rutiles}


def test_input_is_the_neighbour_at_its_own_volume(pairs):
    volumes = {f"c{n}": atoms.get_volume() for n, atoms in enumerate(crystals())}
    formulas = {f"c{n}": atoms.get_chemical_formula() for n, atoms in enumerate(crystals())}
    for row in pairs:
        target, source = row.id.split("<-")
        atoms = atoms_of(row.pair.crystal)
        scale = len(atoms) / len(list(crystals())[int(source[1:])])
        assert atoms.get_volume() == pytest.approx(scale * volumes[source])
        assert atoms.get_chemical_formula() == formulas[target]
        assert row.split == SPLITS[int(target[1:]) % 5]


def test_targets_are_the_relaxed_crystals(pairs):
    """pymatgen's matcher, which finds its own way from one crystal to the other, agrees."""
    matcher = StructureMatcher(ltol=0.02, stol=0.02, angle_tol=1, scale=False)
    to_structure = AseAtomsAdaptor.get_structure
    made = list(crystals())
    for row in pairs:
        pair = row.pair
        relaxed = Atoms(
            pair.crystal.numbers,
            (pair.crystal.positions + pair.displacements) @ pair.deformation,
            cell=pair.crystal.cell @ pair.deformation,
            pbc=True,
        )
        target = made[int(row.id.split("<-")[0][1:])]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert matcher.fit(to_structure(relaxed), to_structure(target))
        # Oxygen of one rutile lies within 0.02 Å of where it lies in another.
        assert np.linalg.norm(pair.displacements, axis=1).max() < 0.03


def test_neighbours_are_the_chemically_nearest(tmp_path):
    rows = list(substitute(write_relaxed(tmp_path / "r.parquet"), neighbors=1))
    assert ("c0", "c1") in {tuple(row.id.split("<-")) for row in rows}  # MgO from CaO
    assert len(rows) == len({row.id.split("<-")[0] for row in rows}) == 8


def test_the_same_seed_gives_the_same_pairs(tmp_path):
    path = write_relaxed(tmp_path / "r.parquet")
    first, second = (list(substitute(path, 2, seed=3, workers=w)) for w in (1, 2))
    assert [row.id for row in first] == [row.id for row in second]


def test_command_line(tmp_path):
    path = write_relaxed(tmp_path / "r.parquet")
    result = CliRunner().invoke(app, ["data", "substitute", str(path)])
    assert result.exit_code == 0, result.stderr
    out = tmp_path / "r_substitution.parquet"
    assert f"{out}: 8 pairs" in result.stdout
    assert len(PairFile(out, "val")) == 1


def test_sheets_are_matched_by_their_layer_groups(tmp_path):
    sheets = [
        mx2("MoS2", a=3.18, thickness=3.13, vacuum=10.0),
        mx2("WSe2", a=3.32, thickness=3.36, vacuum=9.0),
        mx2("SnS2", kind="1T", a=3.70, thickness=2.96, vacuum=9.0),
    ]
    for sheet in sheets:
        sheet.pbc = [True, True, False]
        sheet.rotate(25, "z", rotate_cell=True)
    rows = list(substitute(write_relaxed(tmp_path / "s.parquet", sheets)))
    assert {row.id for row in rows} == {"c0<-c1", "c1<-c0"}  # the other is of another group
    row = next(row for row in rows if row.id == "c0<-c1")
    assert row.pair.crystal.pbc.tolist() == [True, True, False]
    factor = 3.18 / 3.32
    np.testing.assert_allclose(row.pair.deformation, np.diag([factor, factor, 1]), atol=1e-6)
    moved = np.abs(row.pair.displacements)
    np.testing.assert_allclose(moved[:, :2], 0, atol=1e-6)
    assert moved[:, 2].max() == pytest.approx((3.36 - 3.13) / 2, abs=1e-6)


def test_pairs_and_wires_are_refused(tmp_path):
    with pytest.raises(ValueError, match="holds pairs"):
        list(substitute(write_pairs(tmp_path / "p.parquet")))
    wire = bulk("Si")
    wire.pbc = [True, False, False]
    with pytest.raises(ValueError, match="bulk crystals and sheets"):
        list(substitute(write_relaxed(tmp_path / "w.parquet", [wire])))
