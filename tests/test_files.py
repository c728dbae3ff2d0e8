import gzip

import numpy as np
import pytest
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.db import connect as ase_connect
from ase.io import Trajectory
from ase.io import read as ase_read
from ase.io import write as ase_write
from pymatgen.core import Lattice, Structure
from pymatgen.electronic_structure.core import Magmom
from pymatgen.io.cif import CifWriter
from pymatgen.io.vasp import Poscar

from deeprelax_ase import Relaxer
from deeprelax_ase.files.read_files import read_structures
from deeprelax_ase.files.write_files import output_path, write_structures
from deeprelax_ase.structures.validation import StructureError


@pytest.fixture
def rocksalt():
    return Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("POSCAR", "POSCAR_relaxed"),
        ("CONTCAR", "CONTCAR_relaxed"),
        ("POSCAR.start", "POSCAR.start_relaxed"),
        ("a.vasp", "a_relaxed.vasp"),
        ("a.cif", "a_relaxed.cif"),
        ("a.json", "a_relaxed.json"),
        ("a.extxyz", "a_relaxed.extxyz"),
        ("a.xyz", "a_relaxed.xyz"),
        ("a.xsf", "a_relaxed.xsf"),
        ("a.traj", "a_relaxed.traj"),
        ("a.pwi", None),
    ],
)
def test_round_trip_in_the_same_format(tmp_path, rocksalt, name, expected):
    path = tmp_path / name
    if name.startswith(("POSCAR", "CONTCAR")) or name.endswith(".vasp"):
        rocksalt.to(str(path), fmt="poscar")
    elif name.endswith((".cif", ".json")):
        rocksalt.to(str(path))
    elif name.endswith(".pwi"):
        path.write_text("&control\n/\n")
        with pytest.raises(StructureError, match=r"a\.pwi"):
            read_structures(path)
        return
    else:
        ase_write(path, rocksalt.to_ase_atoms(), format="extxyz" if name == "a.xyz" else None)
    source = read_structures(path)
    assert len(source.structures) == 1
    target = output_path(source, None)
    assert target == tmp_path / expected
    write_structures(source, source.structures, target)
    again = read_structures(target)
    assert again.format == source.format
    assert len(again.structures[0]) == 8
    np.testing.assert_allclose(volume(again.structures[0]), 5.6**3, rtol=1e-6)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([name, expected])


def volume(structure):
    return structure.volume if isinstance(structure, Structure) else structure.get_volume()


def test_poscar_keeps_comment_flags_and_order(tmp_path, rocksalt):
    rocksalt.add_site_property("selective_dynamics", [[True, False, True]] * 8)
    path = tmp_path / "POSCAR"
    Poscar(rocksalt, comment="my rock salt").write_file(path)
    source = read_structures(path)
    write_structures(source, source.structures, tmp_path / "out.vasp")
    again = Poscar.from_file(tmp_path / "out.vasp")
    assert again.comment == "my rock salt"
    flags = np.array(again.structure.site_properties["selective_dynamics"])
    assert flags.tolist() == [[True, False, True]] * 8
    assert again.site_symbols == ["Na", "Cl"]


def test_every_frame_is_read_and_written(tmp_path):
    frames = [bulk("Cu"), bulk("Fe"), bulk("NaCl", "rocksalt", a=5.6)]
    frames[0].set_constraint(FixAtoms([0]))
    path = tmp_path / "all.extxyz"
    ase_write(path, frames)
    source = read_structures(path)
    assert len(source.structures) == 3
    write_structures(source, source.structures, tmp_path / "out.extxyz")
    assert [len(a) for a in ase_read(tmp_path / "out.extxyz", ":")] == [1, 1, 2]
    with pytest.raises(StructureError, match="holds one structure, and there are 3"):
        write_structures(source, source.structures, tmp_path / "POSCAR")


def test_other_format_by_name_of_the_output(tmp_path, rocksalt):
    path = tmp_path / "POSCAR"
    rocksalt.to(str(path), fmt="poscar")
    source = read_structures(path)
    for name in ("out.cif", "out.extxyz", "out.vasp"):
        write_structures(source, source.structures, tmp_path / name)
        assert len(read_structures(tmp_path / name).structures[0]) == 8
    for name in ("out", "CONTCAR.1"):  # as it came
        write_structures(source, source.structures, tmp_path / name)
        assert "Direct" in (tmp_path / name).read_text()
    with pytest.raises(
        StructureError, match=r"no format has the ending '\.lmp'; name an --output-"
    ):
        write_structures(source, source.structures, tmp_path / "out.lmp")
    assert not (tmp_path / "out.lmp").exists()


@pytest.mark.parametrize("kind", ["db", "json"])
def test_rows_of_a_database_keep_what_is_beside_the_atoms(tmp_path, kind):
    path, atoms = tmp_path / f"a.{kind}", bulk("Cu")
    with ase_connect(path) as database:
        database.write(atoms, name="one", gap=1.5, data={"x": [1, 2], "y": np.eye(2)})
        database.write(bulk("Fe"))
    source = read_structures(path)
    assert len(source.structures) == 2
    relaxed = [Relaxer(always_move=True).relax(one).structure for one in source.structures]
    write_structures(source, relaxed, tmp_path / f"b.{kind}")
    first, second = ase_connect(tmp_path / f"b.{kind}").select()
    assert first.key_value_pairs == {"name": "one", "gap": 1.5}
    np.testing.assert_array_equal(first.data["y"], np.eye(2))
    assert first.data["x"] == [1, 2]
    assert not second.key_value_pairs
    assert not second.data
    write_structures(source, relaxed, tmp_path / "b.extxyz")
    assert "gap" not in (tmp_path / "b.extxyz").read_text()


def test_deuterium_and_numbers_in_place_of_elements(tmp_path):
    for name, words in (("D", "'D' is no element to its reader: write H"), ("12", "'12' is no el")):
        (tmp_path / "a.xyz").write_text(f"1\n\n{name} 0 0 0\n")
        with pytest.raises(StructureError, match=words):
            read_structures(tmp_path / "a.xyz")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("POSCAR", b"", "is empty"),
        ("POSCAR", b"comment\n1.0\n3 0 0\n0 3 0\n", "is no POSCAR, or breaks off"),
        ("POSCAR", b"c\n1.0\n3 0 0\n0 3 0\n0 0 3\n1\nDirect\n0 0 0\n", "VASP 4"),
        ("a.cif", b"data_x\n_cell_length_a 3\n", "cannot be read"),
        ("a.cif", bytes(range(256)), "cannot be read"),
        ("a.xyz", b"5\n\nCu 0 0 0\n", "cannot be read"),
        ("in.lmp", b"units metal\n", "no format"),
        ("noise.dat", bytes(range(256)) * 4, "no format|cannot be read"),
        ("a.json", b'{"@module": "pymatgen.core", ', "cannot be read"),
    ],
)
def test_bad_files(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(StructureError, match=words) as caught:
        read_structures(path)
    assert name in str(caught.value)


def test_a_file_without_a_structure_is_named(tmp_path):
    Trajectory(tmp_path / "none.traj", "w").close()
    with pytest.raises(StructureError, match=r"none\.traj holds no structure"):
        read_structures(tmp_path / "none.traj")


def test_folder_and_missing(tmp_path):
    with pytest.raises(StructureError, match="is a folder"):
        read_structures(tmp_path)
    with pytest.raises(StructureError, match="no file"):
        read_structures(tmp_path / "none.cif")


def test_a_failed_write_leaves_nothing(tmp_path, rocksalt, monkeypatch):
    source_path = tmp_path / "a.cif"
    rocksalt.to(str(source_path))
    source = read_structures(source_path)
    target = tmp_path / "out.cif"
    target.write_text("old")

    def full_disk(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full_disk)
    with pytest.raises(StructureError, match=r"cannot write .*out.cif: No space left on device"):
        write_structures(source, source.structures, target)
    assert target.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_writer_that_raises_is_reported(tmp_path, rocksalt):
    """Quantum ESPRESSO input needs pseudopotentials that were not given."""
    source_path = tmp_path / "a.cif"
    rocksalt.to(str(source_path))
    source = read_structures(source_path)
    with pytest.raises(StructureError, match=r"cannot write .*out.pwi .*it needs pseudopotentials"):
        write_structures(source, source.structures, tmp_path / "out.pwi")
    assert [path.name for path in tmp_path.iterdir()] == ["a.cif"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.cif.gz", "a_relaxed.cif.gz"),
        ("a.extxyz.gz", "a_relaxed.extxyz.gz"),
        ("POSCAR.gz", "POSCAR_relaxed.gz"),
    ],
)
def test_compressed_files(tmp_path, rocksalt, name, expected):
    plain = tmp_path / name.removesuffix(".gz")
    if "xyz" in name:
        ase_write(plain, rocksalt.to_ase_atoms())
    else:
        rocksalt.to(str(plain), fmt="cif" if "cif" in name else "poscar")
    (tmp_path / name).write_bytes(gzip.compress(plain.read_bytes()))
    source = read_structures(tmp_path / name)
    target = output_path(source, None)
    assert target.name == expected
    write_structures(source, source.structures, target)
    assert target.read_bytes()[:2] == bytes([0x1F, 0x8B])
    assert len(read_structures(target).structures[0]) == 8


def test_json_of_both_libraries(tmp_path, rocksalt):
    frames = [bulk("Cu"), bulk("Fe")]
    ase_write(tmp_path / "ase.json", frames)
    source = read_structures(tmp_path / "ase.json")
    write_structures(source, source.structures, output_path(source, None))
    assert len(ase_read(tmp_path / "ase_relaxed.json", ":")) == 2
    rocksalt.to(str(tmp_path / "a.cif"))
    source = read_structures(tmp_path / "a.cif")
    write_structures(source, source.structures, tmp_path / "b.json")
    assert Structure.from_file(tmp_path / "b.json").composition == rocksalt.composition


def test_blocks_of_a_cif_have_different_names(tmp_path):
    path = tmp_path / "all.extxyz"
    ase_write(path, [bulk("Cu"), bulk("Cu", a=3.7), bulk("Cu", a=3.8)])
    source = read_structures(path)
    write_structures(source, source.structures, tmp_path / "all.cif")
    assert len(read_structures(tmp_path / "all.cif").structures) == 3


def test_magnetic_moments_of_an_mcif_stay(tmp_path, rocksalt):
    rocksalt.add_site_property("magmom", [Magmom([0, 0, 1.5])] * 8)
    path = tmp_path / "a.mcif"
    CifWriter(rocksalt, write_magmoms=True).write_file(path)
    source = read_structures(path)
    target = output_path(source, None)
    write_structures(source, source.structures, target)
    assert target.read_text().count("1.5") >= 8


def test_velocities_are_dropped_with_a_word(tmp_path, rocksalt):
    path = tmp_path / "POSCAR"
    Poscar(rocksalt, velocities=[[0.1, 0, 0]] * 8).write_file(path)
    source = read_structures(path)
    assert "velocities are dropped" in source.notes[0]
    write_structures(source, source.structures, tmp_path / "POSCAR_relaxed")
    assert Poscar.from_file(tmp_path / "POSCAR_relaxed").velocities is None


@pytest.mark.parametrize("name", ["POSCAR_1.cif", "CONTCAR.xyz", "poscar", "POSCAR.json"])
def test_the_suffix_goes_before_the_name(tmp_path, rocksalt, name):
    path = tmp_path / name
    if name.endswith(".xyz"):
        ase_write(path, rocksalt.to_ase_atoms(), format="extxyz")
    elif name.endswith(".json"):
        path.write_text(rocksalt.to_json())
    else:
        rocksalt.to(str(path), fmt="cif" if name.endswith(".cif") else "poscar")
    assert len(read_structures(path).structures[0]) == 8
