"""What an outsider broke in a screening once."""

import json
import os
import shutil
import sqlite3
from contextlib import nullcontext

import ase.db
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk, molecule, mx2
from ase.io import read, write
from pymatgen.io.ase import AseAtomsAdaptor
from test_screen import crystals, rows, screen

from deeprelax_ase.relaxation.options import RelaxOptions
from deeprelax_ase.screening import work_folder as work
from deeprelax_ase.screening.chunk import identity
from deeprelax_ase.screening.export import export
from deeprelax_ase.screening.inputs import ScreenInput
from deeprelax_ase.screening.merge_shards import merge
from deeprelax_ase.screening.screening import Screening
from deeprelax_ase.screening.work_folder import WorkFolder, work_path


def ids(path):
    return [row["id"] for row in rows(path)]


def statuses(path):
    return [row["status"] for row in rows(path)]


def test_sheets_and_molecules_are_deduplicated_and_exported(tmp_path, random_weights):
    sheet = mx2("MgO2", a=3.2, thickness=2.5, vacuum=None)
    sheet.pbc = (True, True, False)
    water = molecule("O2")
    same = [sheet, sheet.copy(), water, water.copy(), bulk("MgO", "rocksalt", a=4.2)]
    write(tmp_path / "in.extxyz", same)
    output = tmp_path / "out.parquet"
    summary = screen([tmp_path / "in.extxyz"], output, random_weights, deduplicate=True)
    assert summary.statuses == {"relaxed": 5}
    groups = [row["group"] for row in rows(output)]
    assert groups[0] == groups[1]
    assert groups[2] == groups[3]
    assert summary.groups == 3
    assert export(output, tmp_path / "files", "vasp") == 5


def test_duplicates_are_found_across_formats(tmp_path, random_weights):
    folder = tmp_path / "in"
    folder.mkdir()
    atoms = bulk("MgO", "rocksalt", a=4.2)
    AseAtomsAdaptor.get_structure(atoms).to(str(folder / "1.cif"), fmt="cif")
    write(folder / "2.extxyz", atoms)
    summary = screen([folder], tmp_path / "out.parquet", random_weights, deduplicate=True)
    assert summary.groups == 1


def test_a_broken_row_of_a_database_costs_itself_alone(tmp_path, random_weights):
    path = tmp_path / "IN.DB"
    with ase.db.connect(str(path), type="db") as database:
        for atoms in crystals(6):
            database.write(atoms)
    with sqlite3.connect(path) as connection:
        connection.execute("update systems set positions=X'00112233' where id=3")
    screen([path], tmp_path / "out.parquet", random_weights)
    expected = ["relaxed"] * 6
    expected[2] = "failed"
    assert statuses(tmp_path / "out.parquet") == expected


def test_a_broken_page_of_a_parquet_file_costs_its_group_alone(tmp_path, random_weights):
    path = tmp_path / "in.parquet"
    atoms = list(crystals(9))
    table = pa.table(
        {
            "numbers": [one.numbers.tolist() for one in atoms],
            "cell": [one.cell[:].ravel().tolist() for one in atoms],
            "positions": [one.positions.ravel().tolist() for one in atoms],
        }
    )
    pq.write_table(table, path, row_group_size=3, compression="zstd")
    place = pq.ParquetFile(path).metadata.row_group(1).column(1).data_page_offset
    content = bytearray(path.read_bytes())
    content[place : place + 40] = b"\xff" * 40
    path.write_bytes(content)
    screen([path], tmp_path / "out.parquet", random_weights)
    found = statuses(tmp_path / "out.parquet")
    assert found == ["relaxed"] * 3 + ["failed"] * 3 + ["relaxed"] * 3


def test_names_that_are_no_text_and_ids_of_several_lines(tmp_path, random_weights):
    folder = tmp_path / "in"
    folder.mkdir()
    record = AseAtomsAdaptor.get_structure(next(crystals(1))).as_dict()
    lines = [{"id": "bad\ud800id", "structure": record}, {"id": "new\nline", "structure": record}]
    (folder / "a.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    (folder / os.fsdecode(b"b\xe9.cif")).write_text("nothing")
    screen([folder], tmp_path / "out.parquet", random_weights)
    assert ids(tmp_path / "out.parquet") == ["bad\\ud800id", "new\nline", "b\\udce9.cif"]
    screen([folder], tmp_path / "out.extxyz", random_weights)
    assert [a.info["id"] for a in read(tmp_path / "out.extxyz", ":")][1] == "new line"
    export(tmp_path / "out.parquet", tmp_path / "files", "vasp")
    assert len(read(tmp_path / "files" / "new_line.vasp", format="vasp")) == 2


def test_one_bad_entry_does_not_take_its_neighbours_along(tmp_path, random_weights):
    records = [AseAtomsAdaptor.get_structure(a).as_dict() for a in crystals(2)]
    by_id = {"mp-0": records[0], "mp-1": None, "mp-2": records[1]}
    (tmp_path / "1.json").write_text(json.dumps(by_id))
    write(tmp_path / "2.extxyz", [bulk("MgO", "rocksalt", a=4.2 + k / 50) for k in range(4)])
    lines = (tmp_path / "2.extxyz").read_text().splitlines(keepends=True)
    (tmp_path / "2.extxyz").write_text("".join(lines[:7] + lines[8:]))  # frame 1 is a line short
    lines = ['{"id": "mp-7", "cif": "garbage"}', "5", '{"id": "", "structure": {}}']
    (tmp_path / "3.jsonl").write_text("\n".join(lines))
    inputs = [tmp_path / name for name in ("1.json", "2.extxyz", "3.jsonl")]
    screen(inputs, tmp_path / "out.parquet", random_weights)
    found = {row["id"]: row for row in rows(tmp_path / "out.parquet")}
    failed = {name for name, row in found.items() if row["status"] == "failed"}
    path = str(tmp_path)
    assert failed == {
        "mp-1",
        f"{path}/2.extxyz[1]",
        "mp-7",
        f"{path}/3.jsonl[1]",
        f"{path}/3.jsonl[2]",
    }
    assert f"{path}/2.extxyz[3]" in found
    assert len(found) == 10
    assert "'5' is no structure" in found[f"{path}/3.jsonl[1]"]["error"]


def test_values_that_are_no_crystals(tmp_path, random_weights):
    cell = (4.2 * np.eye(3)).ravel().tolist()
    good = {"numbers": [12, 8], "cell": cell, "positions": [0.0, 0, 0, 2.1, 2.1, 2.1]}
    changes = [{"numbers": [8.7, 12]}, {"positions": [0.0, 0, 0, 1e15, 2, 2]}, {"pbc": [1, 0]}]
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps({**good, **c}) for c in changes))
    screen([tmp_path / "in.jsonl"], tmp_path / "out.parquet", random_weights)
    errors = [row["error"] for row in rows(tmp_path / "out.parquet")]
    assert "atomic numbers, and one is 8.7" in errors[0]
    assert "are the coordinates in Å?" in errors[1]
    assert "2 of pbc" in errors[2]


def test_links_that_lead_back_up_and_odd_files(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.cif").write_text("x")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "nowhere.cif").symlink_to(tmp_path / "missing")
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "t.db.gz").write_bytes(b"x")
    items = {item.id: item for item in ScreenInput([str(tmp_path)])}
    assert sorted(items) == ["a/nowhere.cif", "a/x.cif", "pipe.json", "t.db.gz"]
    with pytest.raises(ValueError, match="is no regular file"):
        items["pipe.json"].read()
    with pytest.raises(ValueError, match="is compressed: unpack it first"):
        items["t.db.gz"].read()


def test_no_spelling_of_the_input_is_an_output(tmp_path, random_weights):
    (tmp_path / "sub").mkdir()
    write(tmp_path / "a.extxyz", list(crystals(1)))
    (tmp_path / "link.extxyz").symlink_to(tmp_path / "a.extxyz")
    before = (tmp_path / "a.extxyz").read_bytes()
    for inputs, output in (
        ("a.extxyz", "a.extxyz"),
        ("sub/../a.extxyz", "a.extxyz"),
        ("link.extxyz", "a.extxyz"),
    ):
        with pytest.raises(ValueError, match="is an output of this command as well"):
            screen([tmp_path / inputs], tmp_path / output, random_weights, overwrite=True)
    assert (tmp_path / "a.extxyz").read_bytes() == before


@pytest.fixture
def begun(tmp_path, random_weights):
    """A screening that was cut off after all chunks, just before its output."""
    write(tmp_path / "in.extxyz", list(crystals(3)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deeprelax_ase.screening.screening.write_output", interrupt)
        with pytest.raises(KeyboardInterrupt):
            screen([tmp_path / "in.extxyz"], tmp_path / "out.parquet", random_weights)
    return tmp_path


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_merge_does_not_take_over_the_work_of_a_screening(begun, random_weights):
    screen([begun / "in.extxyz"], begun / "other.parquet", random_weights)
    with pytest.raises(ValueError, match="holds the work of another run"):
        merge([begun / "other.parquet"], begun / "out.parquet")
    assert list(work_path(begun / "out.parquet").glob("*.parquet"))


def test_chunks_without_a_run_are_nobodys(begun, random_weights):
    (work_path(begun / "out.parquet") / "run.json").unlink()
    write(begun / "two.extxyz", list(crystals(2, seed=5)))
    screen([begun / "two.extxyz"], begun / "out.parquet", random_weights)
    assert len(rows(begun / "out.parquet")) == 2


def test_memory_and_device_may_change_before_going_on(begun, random_weights):
    options = RelaxOptions(str(random_weights), device="cpu", edges_per_batch=100)
    run = Screening([str(begun / "in.extxyz")], begun / "out.parquet", options)
    run.relax(lambda: nullcontext(None))  # nothing is left to be relaxed
    assert len(rows(begun / "out.parquet")) == 3


def test_a_mistyped_option_leaves_nothing_that_is_in_the_way(tmp_path, random_weights):
    for options in ({"functional": "nope"}, {"vacuum": "nope"}):
        with pytest.raises(ValueError, match="nope"):
            RelaxOptions(**options)
    write(tmp_path / "in.extxyz", list(crystals(1)))
    wrong = RelaxOptions(str(random_weights), always_move=True)
    with WorkFolder(tmp_path / "out.parquet", {"options": identity(wrong)}):
        pass
    screen([tmp_path / "in.extxyz"], tmp_path / "out.parquet", random_weights)


@pytest.mark.parametrize("name", ["out.parquet", "out.db", "out.extxyz"])
def test_killed_while_it_cleans_up_it_is_finished(tmp_path, random_weights, monkeypatch, name):
    write(tmp_path / "in.extxyz", list(crystals(2)))
    with monkeypatch.context() as patch:
        patch.setattr(WorkFolder, "remove", interrupt)
        with pytest.raises(KeyboardInterrupt):
            screen([tmp_path / "in.extxyz"], tmp_path / name, random_weights)
    assert work_path(tmp_path / name).exists()
    before = (tmp_path / name).read_bytes()
    options = RelaxOptions(str(random_weights))
    run = Screening([str(tmp_path / "in.extxyz")], tmp_path / name, options)
    assert run.is_finished
    assert not work_path(tmp_path / name).exists()
    assert (tmp_path / name).read_bytes() == before


def test_a_finished_output_is_not_cleaned_up_under_another_process(tmp_path, random_weights):
    write(tmp_path / "in.extxyz", list(crystals(2)))
    screen([tmp_path / "in.extxyz"], tmp_path / "out.parquet", random_weights)
    options = RelaxOptions(str(random_weights))
    arguments = ([str(tmp_path / "in.extxyz")], tmp_path / "out.parquet", options)
    again = Screening(*arguments, overwrite=True)
    with (
        WorkFolder(tmp_path / "out.parquet", again.run),
        pytest.raises(ValueError, match="is in use: another process"),
    ):
        Screening(*arguments)


def test_what_a_killed_writer_left_is_not_gone_on_with(begun, random_weights):
    left = begun / ".out.db.partial.db"
    with ase.db.connect(str(left)) as database:
        database.write(Atoms("H"))
    screen([begun / "in.extxyz"], begun / "out.db", random_weights)
    assert len(ase.db.connect(str(begun / "out.db"))) == 3
    assert not left.exists()


def test_export_checks_before_it_writes(tmp_path, random_weights):
    atoms = list(crystals(3))
    atoms[1].info["id"] = "x" * 300
    write(tmp_path / "in.extxyz", atoms)
    screen([tmp_path / "in.extxyz"], tmp_path / "out.parquet", random_weights)
    folder = tmp_path / "files"
    with pytest.raises(ValueError, match="without --max-error"):
        export(tmp_path / "out.parquet", folder, "cif", trusted=True)
    with pytest.raises(ValueError, match="is not there"):
        export(tmp_path / "nope.parquet", folder, "cif")
    assert not folder.exists()
    folder.mkdir()
    (folder / "crystal-2.cif").write_text("precious")
    with pytest.raises(ValueError, match=r"crystal-2.cif exists: name another folder"):
        export(tmp_path / "out.parquet", folder, "cif")
    assert [path.name for path in folder.iterdir()] == ["crystal-2.cif"]
    assert export(tmp_path / "out.parquet", tmp_path / "new", "cif") == 3


def test_differences_are_short_and_plain():
    one = {"options": {"model": "a", "functional": "PBE"}, "weights_sha256": {"a": "0" * 64}}
    other = {"options": {"model": "a", "functional": "PBEsol"}, "weights_sha256": {"a": "1" * 64}}
    assert work.difference(one, other) == (
        "PBE there, PBEsol now, of functional; 00000000… there, 11111111… now, of a"
    )


def test_folders_can_be_moved_with_their_work(begun, random_weights, tmp_path_factory):
    moved = tmp_path_factory.mktemp("moved") / "here"
    shutil.copytree(begun, moved, copy_function=shutil.copy2)
    calls = []
    run = Screening(
        [str(moved / "in.extxyz")], moved / "out.parquet", RelaxOptions(str(random_weights))
    )
    run.relax(lambda: nullcontext(calls.append(1)))
    assert calls == []
    assert len(rows(moved / "out.parquet")) == 3
