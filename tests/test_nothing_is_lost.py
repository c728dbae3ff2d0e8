"""What a user has beside a structure stays, or a word says that it does not."""

import errno
import fcntl
import gzip
import json
import os
from collections import OrderedDict, defaultdict
from io import StringIO
from threading import Thread

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixInternals
from ase.db import connect
from ase.io import read as ase_read
from ase.io import write as ase_write
from ase.io.jsonio import encode
from pymatgen.alchemy.materials import TransformedStructure
from pymatgen.core import Lattice, Structure
from pymatgen.core.surface import SlabGenerator
from typer.testing import CliRunner

from deeprelax_ase import DeepRelaxOptimizer, Relaxer
from deeprelax_ase.cli import app
from deeprelax_ase.files.containers import items_of_xyz
from deeprelax_ase.files.lock import locked
from deeprelax_ase.files.read_files import read_structures
from deeprelax_ase.files.write_files import output_path, write_structures


def rocksalt():
    atoms = bulk("MgO", "rocksalt", a=4.4, cubic=True)
    atoms.rattle(0.05, seed=1)
    return atoms


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("geometry.in", "aims"),
        ("a.res", "res"),
        ("a.json", "json"),
        ("a.db", "db"),
        ("a.car", "dmol-car"),
        ("a.extxyz", "extxyz"),
        ("a.gen", "gen"),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_was_compressed_is_written_compressed(tmp_path, name, kind):
    ase_write(tmp_path / name, rocksalt(), format=kind)
    packed = tmp_path / f"{name}.gz"
    packed.write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    source = read_structures(packed)
    output = output_path(source, None)
    write_structures(source, source.structures, output)
    assert gzip.decompress(output.read_bytes())
    again = read_structures(output).structures[0]
    np.testing.assert_allclose(again.positions, source.structures[0].positions, atol=1e-4)
    assert {path.name for path in tmp_path.iterdir()} == {name, packed.name, output.name}


def test_a_length_that_is_held_as_it_was_stays_where_the_cell_changes(random_weights):
    atoms = rocksalt()
    before = atoms.get_distance(0, 1)
    atoms.set_constraint(FixInternals(bonds=[[None, [0, 1]]]))
    result = Relaxer(random_weights, always_move=True).relax(atoms)
    assert result.status == "relaxed", result.message
    assert not np.allclose(result.structure.cell, atoms.cell)
    assert result.structure.get_distance(0, 1) == pytest.approx(before, abs=1e-6)
    DeepRelaxOptimizer(atoms, model=str(random_weights), always_move=True).run()
    assert atoms.get_distance(0, 1) == pytest.approx(before, abs=1e-6)


def test_a_slab_or_a_history_of_pymatgen_is_said_to_become_a_structure(tmp_path):
    structure = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(4.4), ["Mg", "O"], [[0, 0, 0], [0.5] * 3]
    )
    slab = SlabGenerator(structure, (1, 0, 0), 8, 12).get_slab()
    for known in (slab, TransformedStructure(structure)):
        (tmp_path / "a.json").write_text(json.dumps(known.as_dict(), default=str))
        (note,) = read_structures(tmp_path / "a.json").notes
        assert "the JSON of a pymatgen Structure" in note
    (tmp_path / "a.json").write_text(json.dumps(structure.as_dict()))
    assert not read_structures(tmp_path / "a.json").notes


def test_results_of_a_file_are_told_of(random_weights, tmp_path):
    atoms = rocksalt()
    moments = SinglePointCalculator(atoms, energy=-5.0, magmoms=[1.0] * 8)
    atoms.calc = moments
    ase_write(tmp_path / "a.extxyz", atoms)
    relaxer = Relaxer(random_weights, always_move=True)
    result = relaxer.relax(ase_read(tmp_path / "a.extxyz"))
    (note,) = [note for note in result.notes if note.code == "stale_dropped"]
    assert "energy" in note.text
    assert "magmoms" in note.text


def test_info_keeps_its_kinds(random_weights):
    atoms = rocksalt()
    atoms.info = OrderedDict(a=defaultdict(list), calc={"energy": 1.0, "code": "vasp"})
    info = atoms.info = {**atoms.info}
    DeepRelaxOptimizer(atoms, model=str(random_weights), always_move=True).run()
    assert isinstance(atoms.info["a"], defaultdict)
    assert atoms.info["calc"] == {"code": "vasp"}
    assert info["calc"]["energy"] == 1.0
    plain = rocksalt()
    plain.info = {"a": OrderedDict(b=1)}
    info = plain.info
    DeepRelaxOptimizer(plain, model=str(random_weights), always_move=True).run()
    assert plain.info is info


@pytest.mark.parametrize(
    ("comment", "name"),
    [
        ('comment="made from id=7 there" id=good', "good"),
        ('id="a\\"b c"', 'a"b c'),
        ("id=007", "007"),
        ('id="_JSON \\"007\\""', "007"),
        ('id="_JSON 7"', "7"),
        ('id="_JSON oops"', "_JSON oops"),
        ("bid=5 jid=x", "x"),
        ('"old id=5" id=7', "7"),
        (f"{'x' * 100_000} id=7", "7"),
        ("no id here", "in.xyz[0]"),
    ],
)
def test_ids_of_frames(tmp_path, comment, name):
    path = tmp_path / "in.xyz"
    path.write_text(f"1\n{comment}\nMg 0 0 0\n")
    assert [item.id for item in items_of_xyz("in.xyz", path)] == [name]


def test_ids_that_look_like_numbers_are_texts_in_an_extxyz_output(tmp_path, random_weights):
    names = ["007", "1e5", "T", "mp-1", "x y", "_JSON x"]
    frames = []
    for name in names:
        frames.append(rocksalt())
        frames[-1].info["id"] = f'_JSON "{name}"'
    ase_write(tmp_path / "in.extxyz", frames)
    arguments = ["screen", str(tmp_path / "in.extxyz"), "-o", str(tmp_path / "out.extxyz")]
    arguments += ["--model", str(random_weights), "--workers", "1"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    written = ase_read(tmp_path / "out.extxyz", ":")
    assert [atoms.info["id"] for atoms in written] == names
    assert [item.id for item in items_of_xyz("x", tmp_path / "out.extxyz")] == names


def test_json_of_ase_that_is_no_database(tmp_path):
    (tmp_path / "a.json").write_text(encode(rocksalt()))
    source = read_structures(tmp_path / "a.json")
    write_structures(source, source.structures, tmp_path / "b.json")
    assert len(read_structures(tmp_path / "b.json").structures[0]) == 8


def test_several_pipes_and_names_that_are_too_long(tmp_path, random_weights):
    pipes = [tmp_path / name for name in ("one.vasp", "two.vasp")]
    for pipe in pipes:
        os.mkfifo(pipe)
    text = StringIO()
    ase_write(text, rocksalt(), format="vasp")
    writers = [Thread(target=pipe.write_text, args=(text.getvalue(),)) for pipe in pipes]
    for writer in writers:
        writer.start()
    files = [*map(str, pipes), "x" * 300 + ".cif"]
    arguments = ["relax", *files, "-o", f"{tmp_path}/out/", "--model", str(random_weights)]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    for writer in writers:
        writer.join()
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["status"] == "failed" for row in rows] == [False, False, True]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"one.vasp", "two.vasp"}


def test_a_json_database_with_a_byte_order_mark(tmp_path):
    ase_write(tmp_path / "a.json", rocksalt())
    text = (tmp_path / "a.json").read_text()
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "b.json").write_text(text, encoding=encoding)
        assert len(read_structures(tmp_path / "b.json").structures[0]) == 8


@pytest.mark.parametrize("kind", ["db", "json"])
def test_a_database_keeps_its_title(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    with connect(path) as database:
        database.write(rocksalt(), gap=7.8)
        database.metadata = {"title": "oxides", "key_descriptions": {"gap": ["Gap", "", "eV"]}}
    source = read_structures(path)
    output = output_path(source, None)
    write_structures(source, source.structures, output)
    with connect(output) as database:
        assert database.metadata["title"] == "oxides"
        assert next(database.select()).gap == 7.8


def test_where_nothing_can_be_locked_a_word_says_so(tmp_path, monkeypatch):
    def unknown(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unknown)
    with (
        pytest.warns(UserWarning, match=r"cannot be locked \(Function not implemented\)"),
        locked(tmp_path, "another process is here"),
    ):
        pass
    monkeypatch.undo()
    with (
        locked(tmp_path, ""),
        pytest.raises(ValueError, match="another process is here"),
        locked(tmp_path, "another process is here"),
    ):
        pass


def test_an_incar_above_matters_where_it_is_of_a_path(tmp_path, random_weights):
    run = tmp_path / "above" / "run"
    run.mkdir(parents=True)
    ase_write(run / "POSCAR", rocksalt())
    (run / "INCAR").write_text("NSW = 50\nIBRION = 2\nISIF = 3\n")
    above = run.parent / "INCAR"

    def refused():
        arguments = ["vasp", str(run), "--model", str(random_weights), "--dry-run"]
        return CliRunner().invoke(app, arguments).stderr

    above.write_text("NSW = 50\nNSW = 100\n")
    assert "NSW" not in refused()
    above.write_text("NSW = 50\nNSW = 100\nIMAGES = 4\n")
    assert "NSW = 50 and NSW = 100" in refused()
    above.unlink()
    above.mkdir()
    assert "INCAR" not in refused()


def test_failures_in_json_go_where_the_rows_go(random_weights):
    given = {"input": "data_x", "args": ["relax", "-", "--json", "--model", str(random_weights)]}
    result = CliRunner().invoke(app, **given)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert json.loads(result.stderr.splitlines()[0])["status"] == "failed"


def test_occupancies_that_are_no_numbers_say_nothing(random_weights):
    atoms = rocksalt()
    atoms.info["occupancy"] = {"0": {"Mg": "1"}}
    assert Relaxer(random_weights).relax(atoms).status
