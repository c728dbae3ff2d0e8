import numpy as np
import pytest
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.io import read as ase_read
from ase.io import write as ase_write
from pymatgen.core import Lattice, Structure
from pymatgen.io.vasp import Poscar

from deeprelax_ase.files import output_path, read_structures, write_structures
from deeprelax_ase.structure import StructureError


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


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("POSCAR", b"", "is empty"),
        ("POSCAR", b"comment\n1.0\n3 0 0\n0 3 0\n", "cannot be read"),
        ("POSCAR", b"c\n1.0\n3 0 0\n0 3 0\n0 0 3\n1\nDirect\n0 0 0\n", "VASP 4"),
        ("a.cif", b"data_x\n_cell_length_a 3\n", "cannot be read"),
        ("a.cif", bytes(range(256)), "cannot be read"),
        ("a.xyz", b"5\n\nCu 0 0 0\n", "cannot be read"),
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
    with pytest.raises(OSError, match="No space"):
        write_structures(source, source.structures, target)
    assert target.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
