import gzip
import json
from contextlib import nullcontext

import ase.db
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read, write
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor

from deeprelax_ase.files.records import Item
from deeprelax_ase.relaxation.options import RelaxOptions
from deeprelax_ase.relaxation.relaxer import Relaxer
from deeprelax_ase.screening import chunk as chunk_module
from deeprelax_ase.screening import screening as run_module
from deeprelax_ase.screening.chunk import failed_chunk, relax_chunk
from deeprelax_ase.screening.export import export
from deeprelax_ase.screening.inputs import ScreenInput
from deeprelax_ase.screening.merge_shards import merge
from deeprelax_ase.screening.rank_and_deduplicate import general, overview
from deeprelax_ase.screening.screening import Screening
from deeprelax_ase.screening.work_folder import work_path


class Inline:
    """A pool of no processes, that may be told to fail after some chunks."""

    def __init__(self, weights, stop_after=None):
        self.relaxer = Relaxer(weights)
        self.stop_after = stop_after

    def relax(self, chunks):
        for number, chunk in enumerate(chunks):
            if number == self.stop_after:
                raise KeyboardInterrupt
            yield chunk.number, relax_chunk(self.relaxer, chunk)


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of four, so that a few structures make several."""
    monkeypatch.setattr(chunk_module, "CHUNK_SIZE", 4)
    monkeypatch.setattr(run_module, "CHUNK_SIZE", 4)


def crystals(count, seed=0):
    rng = np.random.default_rng(seed)
    for number in range(count):
        atoms = bulk("MgO", "rocksalt", a=4.0 + 0.02 * number)
        atoms.positions += rng.normal(scale=0.03, size=(2, 3))
        atoms.info["id"] = f"crystal-{number}"
        yield atoms


def screen(inputs, output, weights, stop_after=None, **options):
    run = Screening([str(one) for one in inputs], output, RelaxOptions(str(weights)), **options)
    return run.relax(lambda: nullcontext(Inline(weights, stop_after)))


def rows(path):
    return pq.read_table(path).to_pylist()


def without_seconds(path):
    return pq.read_table(path).drop_columns(["seconds"])


@pytest.fixture
def frames(tmp_path):
    write(tmp_path / "in.extxyz", list(crystals(11)))
    return tmp_path / "in.extxyz"


def as_file(kind, folder):  # noqa: C901 - one branch a kind
    """The same three crystals in a file of each kind, and the ids they should get."""
    atoms = list(crystals(3))
    structures = [AseAtomsAdaptor.get_structure(one) for one in atoms]
    own = [one.info["id"] for one in atoms]
    path = folder / f"in.{kind}"
    if kind in ("extxyz", "extxyz.gz"):
        write(path, atoms, format="extxyz")
    elif kind == "db":
        with ase.db.connect(str(path)) as database:
            for one in atoms:
                database.write(one)
        own = ["1", "2", "3"]
    elif kind == "json":
        path.write_text(json.dumps([s.as_dict() for s in structures]))
        own = [f"in.json[{k}]" for k in range(3)]
    elif kind == "by-id.json":
        path.write_text(json.dumps(dict(zip(own, (s.as_dict() for s in structures), strict=True))))
    elif kind == "jsonl":
        records = [
            {"material_id": name, "structure": s.as_dict()}
            for name, s in zip(own, structures, strict=True)
        ]
        path.write_text("\n".join(map(json.dumps, records)))
    elif kind == "parquet":
        table = {
            "id": own,
            "numbers": [one.numbers.tolist() for one in atoms],
            "cell": [one.cell[:].ravel().tolist() for one in atoms],
            "positions": [one.positions.ravel().tolist() for one in atoms],
        }
        pq.write_table(pa.table(table), path)
    elif kind == "cif.parquet":
        cifs = [s.to(fmt="cif", significant_figures=10) for s in structures]
        pq.write_table(pa.table({"material_id": own, "structure": cifs}), path)
    elif kind == "folder":
        path.mkdir()
        (path / "deep").mkdir()
        own = ["a.cif", "b.vasp", "deep/POSCAR"]
        for name, structure in zip(own, structures, strict=True):
            structure.to(str(path / name), fmt="cif" if name == "a.cif" else "poscar")
    return path, own


KINDS = ["extxyz", "extxyz.gz", "db", "json", "by-id.json", "jsonl", "parquet", "cif.parquet"]


@pytest.mark.parametrize("kind", [*KINDS, "folder"])
def test_every_kind_of_input_gives_the_same(kind, tmp_path, random_weights):
    path, ids = as_file(kind, tmp_path)
    output = tmp_path / "out.parquet"
    summary = screen([path], output, random_weights)
    assert summary.statuses == {"relaxed": 3}
    found = rows(output)
    assert [row["id"] for row in found] == ids
    expected = Relaxer(random_weights).relax_many(crystals(3))
    for row, result in zip(found, expected, strict=True):
        cell = np.reshape(row["relaxed_cell"], (3, 3))
        volume = result.structure.get_volume()
        assert abs(np.linalg.det(cell)) == pytest.approx(volume, rel=1e-4)
        assert row["expected_error"] == pytest.approx(result.expected_error, rel=1e-3)
        assert row["weights_sha256"] == result.weights.sha256
    assert not work_path(output).exists()


def test_patterns_and_several_inputs_in_their_order(tmp_path):
    for name in ("b/POSCAR", "a/POSCAR", "a/other"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    items = ScreenInput([f"{tmp_path}/*/POSCAR", str(tmp_path / "a")])
    names = [item.id for item in items]
    a = f"{tmp_path}/a"
    assert names == [f"{a}/POSCAR", f"{tmp_path}/b/POSCAR", f"{a}/POSCAR", f"{a}/other"]
    assert [item.id for item in ScreenInput([str(tmp_path / "a")])] == ["POSCAR", "other"]
    assert items.survey().count == 4


def test_bad_entries_have_rows_with_reasons(tmp_path, random_weights):
    folder = tmp_path / "in"
    folder.mkdir()
    good = AseAtomsAdaptor.get_structure(next(crystals(1)))
    good.to(str(folder / "1.cif"), fmt="cif")
    (folder / "2.cif").write_bytes(b"\x00\xffnothing")
    good.to(str(folder / "3.vasp"), fmt="poscar")
    (folder / "4.cif").touch()
    text = write_text([*crystals(2)])
    (folder / "5.extxyz").write_text(text + "not a count\n" + text)
    (folder / "6.jsonl").write_text(f"{json.dumps(good.as_dict())}\n{{broken\n[1]\n")
    (folder / "7.json").write_text("[" + json.dumps(good.as_dict()) + ", {")
    lines = write_text([next(crystals(1))]).splitlines(keepends=True)
    (folder / "8.extxyz").write_text("".join(lines[:-1]))
    summary = screen([folder], tmp_path / "out.parquet", random_weights)
    found = [(r["id"], r["status"], r["error"]) for r in rows(tmp_path / "out.parquet")]
    relaxed = [name for name, status, _ in found if status == "relaxed"]
    assert relaxed == ["1.cif", "3.vasp", "crystal-0", "crystal-1", "6.jsonl[0]", "7.json[0]"]
    failed = {name: error for name, status, error in found if status == "failed"}
    assert "cannot be read" in failed["2.cif"]
    assert failed["4.cif"].endswith("is empty")
    assert "begins with its number of atoms, not with 'not a count'" in failed["5.extxyz[2]"]
    assert set(failed) >= {"6.jsonl[1]", "6.jsonl[2]", "7.json[1]"}
    assert "breaks off" in failed["crystal-0"]
    assert summary.statuses["failed"] == len(failed) == 7


def test_an_input_that_changes_is_noticed(frames, tmp_path, random_weights):
    run = Screening([str(frames)], tmp_path / "out.parquet", RelaxOptions(str(random_weights)))
    frames.write_text("")
    with pytest.raises(ValueError, match=r"changed while it was read: pass --overwrite"):
        run.relax(lambda: nullcontext(Inline(random_weights)))


def write_text(atoms):
    from io import StringIO

    stream = StringIO()
    write(stream, atoms, format="extxyz")
    return stream.getvalue()


def test_rows_that_are_no_crystals(tmp_path, random_weights):
    cell = (4.2 * np.eye(3)).ravel().tolist()
    positions = [0.0, 0, 0, 2.1, 2.1, 2.1]
    table = {
        "id": ["nan", "element", "counts", "null", "twice", "unseen"],
        "numbers": [[12, 8], [12, 130], [12, 8, 8], None, [12, 8], [92, 8]],
        "cell": [cell] * 6,
        "positions": [[*positions[:-1], float("nan")], *[positions] * 3, [0.0] * 6, positions],
    }
    pq.write_table(pa.table(table), tmp_path / "in.parquet")
    summary = screen([tmp_path / "in.parquet"], tmp_path / "out.parquet", random_weights)
    assert summary.statuses == {"failed": 6}
    reasons = {row["id"]: row["error"] for row in rows(tmp_path / "out.parquet")}
    assert "have to be finite" in reasons["nan"]
    assert "atomic number 130" in reasons["element"]
    assert "do not belong together" in reasons["counts"]
    assert "holds no numbers" in reasons["null"]
    assert "share a site" in reasons["twice"]
    assert "never saw U" in reasons["unseen"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: None, "no file or folder"),
        (lambda p: p.mkdir(), "holds no structure to screen"),
        (lambda p: p.touch(), None),
    ],
)
def test_inputs_with_nothing_in_them(make, message, tmp_path, random_weights):
    path = tmp_path / "in"
    make(path)
    if message is None:  # an empty file is an entry that fails
        summary = screen([path], tmp_path / "out.parquet", random_weights)
        assert summary.statuses == {"failed": 1}
        return
    with pytest.raises(ValueError, match=message):
        screen([path], tmp_path / "out.parquet", random_weights)
    assert not (tmp_path / "out.parquet").exists()
    assert not work_path(tmp_path / "out.parquet").exists()


@pytest.mark.usefixtures("small_chunks")
def test_an_interrupted_run_goes_on(frames, tmp_path, random_weights):
    whole, cut = tmp_path / "whole.parquet", tmp_path / "cut.parquet"
    screen([frames], whole, random_weights)
    with pytest.raises(KeyboardInterrupt):
        screen([frames], cut, random_weights, stop_after=2)
    assert not cut.exists()
    assert len(list(work_path(cut).glob("*.parquet"))) == 2
    done = {part: part.stat().st_mtime_ns for part in work_path(cut).glob("*.parquet")}
    with pytest.raises(KeyboardInterrupt):
        screen([frames], cut, random_weights, stop_after=0)
    assert all(part.stat().st_mtime_ns == time_ for part, time_ in done.items())
    screen([frames], cut, random_weights)
    assert without_seconds(cut).equals(without_seconds(whole))
    assert [row["id"] for row in rows(cut)] == [f"crystal-{k}" for k in range(11)]


@pytest.mark.usefixtures("small_chunks")
def test_another_run_is_neither_mixed_nor_overwritten(frames, tmp_path, random_weights):
    output = tmp_path / "out.parquet"
    with pytest.raises(KeyboardInterrupt):
        screen([frames], output, random_weights, stop_after=1)
    other = tmp_path / "other.extxyz"
    write(other, list(crystals(3)))
    with pytest.raises(ValueError, match=r"holds the work of another run .*--overwrite"):
        screen([other], output, random_weights)
    screen([frames], output, random_weights)
    with pytest.raises(ValueError, match=r"exists, of another run .*--overwrite"):
        Screening([str(other)], output, RelaxOptions(str(random_weights)))
    assert Screening([str(frames)], output, RelaxOptions(str(random_weights))).is_finished
    output.write_text("precious")
    with pytest.raises(ValueError, match="exists: pass --overwrite"):
        Screening([str(frames)], output, RelaxOptions(str(random_weights)))
    assert output.read_text() == "precious"
    screen([other], output, random_weights, overwrite=True)
    assert len(rows(output)) == 3


@pytest.mark.usefixtures("small_chunks")
def test_shards_merge_to_the_whole(frames, tmp_path, random_weights):
    whole, merged = tmp_path / "whole.parquet", tmp_path / "merged.parquet"
    screen([frames], whole, random_weights, max_error=0.1, deduplicate=True)
    shares = [tmp_path / f"share-{k}.parquet" for k in (1, 2, 3)]
    for number, share in enumerate(shares, 1):
        screen([frames], share, random_weights, shard=number, shards=3)
    assert [len(rows(share)) for share in shares] == [4, 4, 3]
    merge(shares, merged, max_error=0.1, deduplicate=True)
    left, right = without_seconds(merged), without_seconds(whole)
    for name in left.column_names:  # other batches round differently
        pairs = zip(left[name].to_pylist(), right[name].to_pylist(), strict=True)
        kind = left.schema.field(name).type
        if pa.types.is_floating(getattr(kind, "value_type", kind)):
            assert all(a == pytest.approx(b, rel=1e-5, abs=1e-6) for a, b in pairs), name
        else:
            assert all(a == b for a, b in pairs), name
    with pytest.raises(ValueError, match="shards 2/3 are missing"):
        merge([shares[0], shares[2]], tmp_path / "no.parquet")
    with pytest.raises(ValueError, match="which is there already"):
        merge([shares[0], shares[0]], tmp_path / "no.parquet")
    with pytest.raises(ValueError, match="of another run"):
        merge([shares[0], whole], tmp_path / "no.parquet")
    with pytest.raises(ValueError, match="no parquet file that deeprelax screen wrote"):
        merge([frames], tmp_path / "no.parquet")
    assert not (tmp_path / "no.parquet").exists()


def test_a_merge_keeps_the_limit_of_its_shares(frames, tmp_path, random_weights):
    shares = [tmp_path / f"share-{k}.parquet" for k in (1, 2)]
    for number, share in enumerate(shares, 1):
        screen([frames], share, random_weights, shard=number, shards=2, max_error=0.1)
    merge(shares, tmp_path / "m.parquet")
    assert [row["trusted"] for row in rows(tmp_path / "m.parquet")] == [
        row["trusted"] for share in shares for row in rows(share)
    ]
    screen([frames], shares[0], random_weights, shard=1, shards=2, max_error=0.2, overwrite=True)
    with pytest.raises(ValueError, match=r"different limits \(0.1, 0.2\): name a --max-error"):
        merge(shares, tmp_path / "no.parquet")
    merge(shares, tmp_path / "m.parquet", max_error=0.1, overwrite=True)


def test_of_what_nothing_was_predicted_has_no_rank(tmp_path, random_weights):
    atoms = [Atoms("O", cell=[20] * 3, pbc=True), *crystals(1)]
    write(tmp_path / "in.extxyz", atoms)
    summary = screen([tmp_path / "in.extxyz"], tmp_path / "o.parquet", random_weights, max_error=9)
    lonely, _ = rows(tmp_path / "o.parquet")
    assert (lonely["status"], lonely["rank"], lonely["trusted"]) == ("unchanged", None, None)
    assert summary.trusted == len(summary.expected_errors) == 1


def test_what_lies_beside_structures_is_passed_over(tmp_path, random_weights):
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    write(folder / "POSCAR", next(iter(crystals(1))), format="vasp")
    for name in ("INCAR", "KPOINTS", "OSZICAR", "POSCAR.unrelaxed", "POSCAR.deeprelax.json"):
        (folder / name).write_text("ISIF = 3\nNSW = 5\nIBRION = 2\n")
    summary = screen([tmp_path / "runs"], tmp_path / "o.extxyz", random_weights)
    assert summary.statuses == {"relaxed": 1}
    (frame,) = read(tmp_path / "o.extxyz", ":")
    assert {"gain_probability", "expected_gain", "passes"} <= set(frame.info)
    summary = screen([folder / "INCAR"], tmp_path / "p.parquet", random_weights)
    assert summary.statuses == {"failed": 1}


def test_shards_out_of_range(frames, tmp_path):
    for shard in (0, 4):
        with pytest.raises(ValueError, match=f"no shard {shard}/3: choose 1/3 to 3/3"):
            Screening([str(frames)], tmp_path / "o.parquet", RelaxOptions(), shard=shard, shards=3)


def test_ranks_trust_and_duplicates(tmp_path, random_weights):
    atoms = list(crystals(4))
    twin = atoms[1] * (2, 1, 1)
    twin.info["id"] = "twin"
    write(tmp_path / "in.extxyz", [*atoms, twin])
    output = tmp_path / "out.parquet"
    first = screen([tmp_path / "in.extxyz"], output, random_weights)
    limit = float(first.expected_errors[2])
    summary = screen(
        [tmp_path / "in.extxyz"],
        output,
        random_weights,
        max_error=limit,
        deduplicate=True,
        overwrite=True,
    )
    found = rows(output)
    errors = [row["expected_error"] for row in found]
    assert [row["rank"] for row in found] == (np.argsort(np.argsort(errors)) + 1).tolist()
    assert [row["trusted"] for row in found] == [error <= limit for error in errors]
    assert summary.trusted == sum(error <= limit for error in errors) >= 3
    groups = [row["group"] for row in found]
    assert groups[4] == groups[1]
    assert summary.groups == len(set(groups))
    for group in set(groups):
        members = [row for row in found if row["group"] == group]
        (best,) = [row for row in members if row["representative"]]
        assert best["rank"] == min(row["rank"] for row in members)


def test_output_as_extxyz_and_database(frames, tmp_path, random_weights):
    broken = tmp_path / "broken.cif"
    broken.write_text("nothing")
    reference = tmp_path / "out.parquet"
    for output in (reference, tmp_path / "out.extxyz", tmp_path / "out.db"):
        screen([broken, frames], output, random_weights)
    expected = rows(reference)
    written = read(tmp_path / "out.extxyz", ":")
    assert [a.info["id"] for a in written] == [r["id"] for r in expected]
    database = ase.db.connect(str(tmp_path / "out.db"))
    found = list(database.select())
    assert [row.data["id"] for row in found] == [r["id"] for r in expected]
    for row, atoms, one in zip(expected[1:], written[1:], found[1:], strict=True):
        np.testing.assert_allclose(atoms.positions.ravel(), row["relaxed_positions"], atol=1e-6)
        np.testing.assert_allclose(one.positions.ravel(), row["relaxed_positions"])
        assert one.expected_error == row["expected_error"]
    assert written[0].info["status"] == found[0].status == "failed"
    with pytest.raises(ValueError, match=r"has to end in one of .parquet, .extxyz, .db"):
        screen([frames], tmp_path / "out.csv", random_weights)


def test_export_writes_files_of_their_own(frames, tmp_path, random_weights):
    output = tmp_path / "out.parquet"
    screen([frames, frames], output, random_weights, max_error=0.0)
    assert export(output, tmp_path / "cifs", "cif") == 22
    names = sorted(path.name for path in (tmp_path / "cifs").iterdir())
    assert names[:2] == ["crystal-0-2.cif", "crystal-0.cif"]
    written = Structure.from_file(tmp_path / "cifs" / "crystal-3.cif")
    assert written.volume == pytest.approx(
        abs(np.linalg.det(np.reshape(rows(output)[3]["relaxed_cell"], (3, 3)))), rel=1e-6
    )
    with pytest.raises(ValueError, match="exists: name another folder"):
        export(output, tmp_path / "cifs", "cif")
    assert export(output, tmp_path / "trusted", "vasp", trusted=True) == 0
    with pytest.raises(ValueError, match="without --deduplicate"):
        export(output, tmp_path / "unique", "cif", unique=True)


@pytest.mark.usefixtures("small_chunks")
def test_a_full_disk_loses_nothing(frames, tmp_path, random_weights, monkeypatch):
    output = tmp_path / "out.parquet"
    real = pq.write_table
    calls = []

    def write_table(table, path, **options):
        calls.append(path)
        if len(calls) > 1:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device", str(path))
        real(table, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", write_table)
        with pytest.raises(OSError, match="No space left"):
            screen([frames], output, random_weights)
    assert sorted(p.name for p in work_path(output).iterdir()) == [
        "00000000.parquet",
        "lock",
        "run.json",
    ]
    screen([frames], output, random_weights)
    assert [row["id"] for row in rows(output)] == [f"crystal-{k}" for k in range(11)]


def test_two_processes_do_not_share_an_output(frames, tmp_path, random_weights):
    class Nosy(Inline):
        def relax(self, chunks):
            with pytest.raises(ValueError, match="another process is at this output"):
                screen([frames], tmp_path / "out.parquet", random_weights)
            return super().relax(chunks)

    run = Screening([str(frames)], tmp_path / "out.parquet", RelaxOptions(str(random_weights)))
    run.relax(lambda: nullcontext(Nosy(random_weights)))
    assert len(rows(tmp_path / "out.parquet")) == 11


def test_reasons_are_counted_without_their_details():
    first = general("atoms 0 and 1 share a site: they are 0.123 Å apart, less than 0.5 Å; remove")
    second = general("atoms 3 and 9 share a site: they are 0.2 Å apart, less than 0.5 Å; remove")
    assert first == second
    assert general("/a/b.cif is empty") == general("c/d.cif is empty") == "… is empty"


def test_parts_of_nothing(tmp_path):
    chunk = chunk_module.Chunk(0, [(0, Item("a", list))])
    pq.write_table(failed_chunk(chunk, "why"), tmp_path / "part.parquet")
    whole = overview([tmp_path / "part.parquet"], 0.1, deduplicate=True)
    (table,) = whole.tables()
    (row,) = table.to_pylist()
    assert (row["rank"], row["trusted"], row["group"]) == (None, None, None)


@pytest.mark.parametrize(
    ("poscar", "incar"),
    [
        ("POSCAR", "INCAR"),
        ("POSCAR", "INCAR.gz"),
        ("POSCAR.relax1", "INCAR.relax1"),
        ("POSCAR.relax1.gz", "INCAR.relax1.gz"),
        ("CONTCAR.relax2", "INCAR"),
        ("POSCAR", "../INCAR"),
    ],
)
def test_another_incar_is_another_input(tmp_path, poscar, incar):
    """What an INCAR holds decides on the result: work of another one is not gone on with."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / poscar).write_bytes(gzip.compress(b"a") if poscar.endswith(".gz") else b"a structure")
    (folder / incar).write_bytes(gzip.compress(b"NSW = 9\n"))
    before = ScreenInput([str(folder / poscar)]).survey().digest
    (folder / incar).write_bytes(gzip.compress(b"NSW = 9\nIBRION = 2\n"))
    assert ScreenInput([str(folder / poscar)]).survey().digest != before
