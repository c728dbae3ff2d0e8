import os
import pickle

import numpy as np
import pytest
import sources
from typer.testing import CliRunner

from deeprelax_ase.cli import app
from deeprelax_ase.datasets.import_pairs import Report, convert
from deeprelax_ase.datasets.importers.safe_pickle import UnsafePickleError, load_structures
from deeprelax_ase.datasets.pair_file import PairFile
from deeprelax_ase.datasets.write_pairs import split_of, write_pairs

# What is made, how many pairs it holds, of which functional, and whether they are sheets.
SOURCES = {
    "xmno": (sources.xmno, 3, "PBE", False),
    "deeprelax_xmno": (sources.deeprelax_xmno, 3, "PBE", False),
    "definet": (sources.definet, 6, "PBE", False),
    "mpf": (sources.mpf, 4, "PBE", False),
    "c2db": (sources.c2db, 3, "PBE", True),
    "two_databases": (sources.two_databases, 3, "PBE", True),
    "contcar": (sources.vasp_contcar, 1, "unknown", False),
    "xdatcar": (sources.vasp_xdatcar, 1, "unknown", False),
    "vasprun": (sources.vasp_xml, 1, "PBEsol", False),
    "trajectory": (sources.trajectory, 1, "unknown", False),
}
runner = CliRunner()


@pytest.mark.parametrize("name", SOURCES)
def test_every_format_gives_the_pairs_it_was_made_of(tmp_path, name):
    make, count, functional, sheets = SOURCES[name]
    (tmp_path / "source").mkdir()
    report = Report()
    rows = list(convert(make(tmp_path / "source"), report))
    assert (report.read, report.skipped) == (count, {}), report.first
    assert len(rows) == len({row.id for row in rows}) == count
    moves, deformation = (sources.sheet_pair() if sheets else sources.bulk_pair())[2:]
    pair = min(rows, key=lambda row: row.id).pair
    # A CIF holds the cell as lengths and angles, and comes out in another order of species.
    found, made = (np.sort(np.linalg.norm(m, axis=1)) for m in (pair.displacements, moves))
    np.testing.assert_allclose(found, made, atol=1e-4)
    np.testing.assert_allclose(
        np.linalg.eigvalsh(pair.deformation), np.linalg.eigvalsh(deformation), atol=1e-5
    )
    assert pair.functional == functional
    assert pair.crystal.pbc.tolist() == [True, True, not sheets]


def test_splits_are_those_of_the_source(tmp_path):
    rows = list(convert(sources.xmno(tmp_path), Report()))
    assert [row.split for row in rows] == ["test", "train", "val"]


def test_splits_go_by_the_reduced_formula():
    assert split_of(np.array([12, 8])) == split_of(np.array([8, 12, 12, 8]))
    rng = np.random.default_rng(0)
    splits = [split_of(rng.integers(1, 100, size=4)) for _ in range(4000)]
    shares = [splits.count(name) / 4000 for name in ("train", "val", "test")]
    np.testing.assert_allclose(shares, [0.9, 0.05, 0.05], atol=0.015)


@pytest.mark.parametrize("gga", [("PE", "PBE"), ("PS", "PBEsol"), ("BO", "optB88-vdW")])
def test_functionals_come_from_vasprun(tmp_path, gga):
    (row,) = convert(sources.vasp_xml(tmp_path, gga[0]), Report())
    assert row.pair.functional == gga[1]
    (row,) = convert(tmp_path, Report(), functional="r2SCAN")
    assert row.pair.functional == "r2SCAN"


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_every_protocol(tmp_path, protocol):
    assert len(list(convert(sources.mpf(tmp_path, protocol), Report()))) == 4


class Touch:
    """What would write a file if it were unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("deep", [False, True])
def test_a_malicious_pickle_runs_nothing(tmp_path, deep):
    victim = tmp_path / "touched"
    evil = {"mp-1": {"structure": [Touch(victim)]}} if deep else Touch(victim)
    (tmp_path / "block_0.p").write_bytes(pickle.dumps(evil))
    with pytest.raises(UnsafePickleError, match="system"):
        load_structures(tmp_path / "block_0.p")
    result = runner.invoke(app, ["data", str(tmp_path), str(tmp_path / "out.parquet")])
    assert result.exit_code == 2
    assert "it could run anything" in result.stderr
    assert not victim.exists()
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize(
    "text", [b"cbuiltins\neval\n(S'1'\ntR.", b"cnumpy.testing\nrunstring\n(S'1'\ntR."]
)
def test_other_names_are_refused(tmp_path, text):
    (tmp_path / "block_0.p").write_bytes(text)
    with pytest.raises(UnsafePickleError):
        load_structures(tmp_path / "block_0.p")


class Made:
    """Pickled as a call with arguments and a state of one's own."""

    def __init__(self, function, arguments, state=None):
        self.parts = (function, arguments, state)

    def __reduce__(self):
        return self.parts


def hostile(kind):
    """Content that would reach into memory or change functions, if numpy's own were there."""
    if kind == "pointers":
        dtype = Made(
            np.dtype,
            ("V8", False, True),
            (3, "|", None, ("f",), {"f": (np.dtype("O"), 0)}, 8, 1, 0),
        )
        rebuild = np.empty(0).__reduce__()[0]
        return Made(rebuild, (np.ndarray, (0,), b"b"), (1, (9,), dtype, False, b"A" * 72))
    if kind == "objects":
        return np.array([{"a": 1}], dtype=object)
    return np.array([1.0, 2.0], dtype=[("x", float)])


@pytest.mark.parametrize("kind", ["pointers", "objects", "fields"])
def test_arrays_hold_plain_numbers_or_nothing(tmp_path, kind):
    path = tmp_path / "block_0.p"
    path.write_bytes(pickle.dumps({"mp-1": hostile(kind)}, 4))
    with pytest.raises(UnsafePickleError, match="plain numbers"):
        load_structures(path)


def test_no_memory_is_asked_for(tmp_path):
    path = tmp_path / "block_0.p"
    path.write_bytes(pickle.dumps({"mp-1": Made(bytearray, (2**40,))}, 4))
    with pytest.raises(UnsafePickleError, match="bytearray of int"):
        load_structures(path)
    for protocol in range(6):
        path.write_bytes(pickle.dumps(bytearray(b"\xff\x00a"), protocol))
        assert load_structures(path) == b"\xff\x00a"


def test_functions_cannot_be_changed(tmp_path):
    path = tmp_path / "block_0.p"
    path.write_bytes(b"c_codecs\nencode\n}S'a'\nI1\nsb.")
    with pytest.raises(ValueError, match=r"changes a function|no whole pickle"):
        load_structures(path)


def test_arrays_of_every_number_survive(tmp_path):
    path = tmp_path / "block_0.p"
    kinds = ("f8", "f4", ">f8", "i8", "u1", "b1", "<i2")
    arrays = {kind: np.arange(6).reshape(2, 3).astype(kind) for kind in kinds}
    for protocol in (2, 4, 5):
        path.write_bytes(pickle.dumps(arrays, protocol))
        found = load_structures(path)
        for kind, array in arrays.items():
            np.testing.assert_array_equal(np.array(found[kind]), array)


def test_a_broken_pickle_is_named(tmp_path):
    sources.mpf(tmp_path)
    path = tmp_path / "block_0.p"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="no whole pickle"):
        load_structures(path)


def spoil(folder):
    """The second of three pairs lacks a file."""
    (folder / "m1_unrelaxed.cif").unlink()
    return folder


def test_pairs_that_cannot_be_used_are_counted(tmp_path):
    report = Report()
    rows = list(convert(spoil(sources.xmno(tmp_path)), report))
    assert (len(rows), report.read, sum(report.skipped.values())) == (2, 3, 1)
    assert report.first.startswith("m1: no file")
    with pytest.raises(ValueError, match="pair m1: no file"):
        list(convert(tmp_path, Report(), strict=True))


def test_runs_that_are_no_relaxations_are_left_out(tmp_path):
    for name, old, new in (
        ("static", '"NSW">5', '"NSW">0'),
        ("dynamics", '"IBRION">2', '"IBRION">0'),
        ("unfinished", '"NSW">5', '"NSW">3'),
        ("static too", '"NSW">5', '"NSW">-1'),
        ("one step", '"NSW">5', '"NSW">1'),
        ("image", "</incar>", '<i type="int" name="IMAGES">3</i></incar>'),
    ):
        folder = make(tmp_path / name)
        path = sources.vasp_xml(folder) / "vasprun.xml"
        path.write_text(path.read_text().replace(old, new))
    broken = sources.vasp_xml(make(tmp_path / "broken")) / "vasprun.xml"
    broken.write_text(broken.read_text()[:2000])
    make(tmp_path / "alone").joinpath("CONTCAR").write_text("")
    sources.vasp_xml(make(tmp_path / "good"))
    report = Report()
    rows = list(convert(tmp_path, report))
    assert [row.id for row in rows] == ["good"]
    assert report.num_skipped == 7, report.skipped
    hybrid = sources.vasp_xml(make(tmp_path / "good" / "hybrid"), "PE") / "vasprun.xml"
    flag = '<i type="logical" name="LHFCALC"> T </i></incar>'
    hybrid.write_text(hybrid.read_text().replace("</incar>", flag))
    (row,) = convert(hybrid.parent, Report())
    assert row.pair.functional == "unknown"


def test_a_whole_number_that_overflowed_is_no_matter(tmp_path):
    path = sources.vasp_xml(tmp_path) / "vasprun.xml"
    stars = '<i type="int" name="KINTER">******</i></separator>'
    path.write_text(path.read_text().replace("</separator>", stars))
    assert len(list(convert(tmp_path, Report()))) == 1


def test_archives_of_outputs_are_no_outputs(tmp_path):
    sources.vasp_xml(tmp_path)
    (tmp_path / "vasprun.xml.tar.bz2").write_bytes(b"BZh9")
    (tmp_path / "vasprun.xmls").mkdir()
    assert len(list(convert(tmp_path, Report()))) == 1


@pytest.mark.parametrize(
    ("incar", "functional"),
    [
        ("", "unknown"),
        ("NSW = 9\nIBRION = 2\nGGA = PS", "PBEsol"),
        ("NSW = 9\nIBRION = 0", None),
        ("IBRION = 2", None),
        ("NSW = 9\nNSW = 8", None),
    ],
)
@pytest.mark.parametrize("layout", [sources.vasp_contcar, sources.vasp_xdatcar])
def test_an_incar_beside_says_what_a_run_was(tmp_path, layout, incar, functional):
    layout(tmp_path)
    if incar:
        (tmp_path / "INCAR").write_text(incar)
    report = Report()
    rows = list(convert(tmp_path, report))
    assert [row.pair.functional for row in rows] == [functional] * (functional is not None)
    assert report.num_skipped == (functional is None)


def test_images_of_a_path_are_left_out(tmp_path):
    sources.vasp_contcar(make(tmp_path / "01"))
    (tmp_path / "INCAR").write_text("NSW = 9\nIBRION = 3\nIMAGES = 1")
    report = Report()
    assert not list(convert(tmp_path, report))
    assert "image of a path" in report.first


def test_a_run_in_two_steps_goes_from_first_to_last(tmp_path):
    sources.vasp_contcar(tmp_path)
    relaxed = tmp_path / "CONTCAR"
    (tmp_path / "CONTCAR.relax1").write_text((tmp_path / "POSCAR").read_text())
    relaxed.rename(tmp_path / "CONTCAR.relax2")
    (tmp_path / "POSCAR.relax2").write_text((tmp_path / "CONTCAR.relax2").read_text())
    (tmp_path / "POSCAR").rename(tmp_path / "POSCAR.relax1")
    (row,) = convert(tmp_path, Report())
    deformation = sources.bulk_pair()[3]
    np.testing.assert_allclose(row.pair.deformation, deformation, atol=1e-6)


@pytest.mark.parametrize("content", [{"structure": []}, None, 3, {"energy": [1.0]}])
def test_one_odd_entry_does_not_stop_the_rest(tmp_path, content):
    sources.mpf(tmp_path)
    (tmp_path / "block_2.p").write_bytes(pickle.dumps({"mp-9": content}))
    report = Report()
    assert len(list(convert(tmp_path, report))) == 4
    assert report.num_skipped == 1


def test_what_is_no_database_is_named(tmp_path):
    path = tmp_path / "c2db.db"
    path.write_bytes(b"SQLite format 3" + bytes(100))
    with pytest.raises(ValueError, match="cannot be read as C2DB"):
        list(convert(path, Report()))


def test_names_in_several_tables_count_once(tmp_path):
    sources.xmno(tmp_path)
    (tmp_path / "id_prop_all.csv").write_text("m0,-1\nm1,-1\nm2,-1\n")
    rows = list(convert(tmp_path, Report()))
    assert {row.id: row.split for row in rows} == {"m0": "train", "m1": "val", "m2": "test"}


def test_reasons_are_shown_where_no_pair_is_left(tmp_path):
    folder = sources.vasp_contcar(make(tmp_path / "run"))
    (folder / "CONTCAR").write_text("")
    result = runner.invoke(app, ["data", str(folder), str(tmp_path / "out.parquet")])
    assert result.exit_code == 2
    assert "CONTCAR is empty" in result.stderr


def test_one_snapshot_is_no_pair(tmp_path):
    path = sources.trajectory(tmp_path)
    from ase.io import read, write

    write(path, read(path, 0))
    with pytest.raises(ValueError, match="1 snapshots"):
        list(convert(path, Report(), strict=True))


def test_command_line(tmp_path):
    (tmp_path / "source").mkdir()
    source = spoil(sources.xmno(tmp_path / "source"))
    out = tmp_path / "pairs.parquet"
    result = runner.invoke(app, ["data", str(source), str(out)])
    assert result.exit_code == 0, result.stderr
    assert "2 pairs of 3, 1 left out" in result.stdout
    assert len(PairFile(out, "train")) == 1
    before = out.read_bytes()
    again = runner.invoke(app, ["data", str(source), str(out)])
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    strict = runner.invoke(app, ["data", str(source), str(out), "--strict", "--overwrite"])
    assert strict.exit_code == 2
    assert out.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pairs.parquet", "source"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "out.parquet"], "no such file"),
        ([".", "out.parquet"], "no source of pairs"),
        ([".", "out.csv"], "parquet"),
        (["x.traj", "out.parquet", "--functional", "LDA"], "unknown functional"),
    ],
)
def test_wrong_calls(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    if "x.traj" in arguments:
        sources.trajectory(tmp_path).rename("x.traj")
    result = runner.invoke(app, ["data", *arguments])
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_full_disk_leaves_the_old_file(tmp_path):
    out = tmp_path / "pairs.parquet"
    rows = list(convert(sources.xmno(make(tmp_path / "s")), Report()))
    write_pairs(out, rows)
    before = out.read_bytes()

    def full():
        yield rows[0]
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_pairs(out, full())
    assert out.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["pairs.parquet"]


def make(folder):
    folder.mkdir()
    return folder


def test_what_has_no_ending_came_last_and_orig_first(tmp_path):
    folder = sources.vasp_contcar(tmp_path)
    before = (folder / "POSCAR").read_text()
    (folder / "POSCAR.orig").write_text(before)
    (folder / "POSCAR").write_text((folder / "CONTCAR").read_text())
    for number in (1, 2, 10):
        (folder / f"CONTCAR.relax{number}").write_text(before)
    (row,) = convert(folder, Report())
    np.testing.assert_allclose(row.pair.deformation, sources.bulk_pair()[3], atol=1e-6)
    (folder / "CONTCAR").rename(folder / "CONTCAR.relax11")
    (row,) = convert(folder, Report())
    np.testing.assert_allclose(row.pair.deformation, sources.bulk_pair()[3], atol=1e-6)
