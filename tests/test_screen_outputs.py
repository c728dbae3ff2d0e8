"""Duplicates, boxes, merged limits, names and the report of a screening."""

import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from ase.build import add_adsorbate, bulk, fcc111, graphene, molecule, mx2
from ase.constraints import FixAtoms
from ase.io import read, write
from typer.testing import CliRunner

from deeprelax_ase import Relaxer
from deeprelax_ase.cli import app
from deeprelax_ase.relaxation.options import RelaxOptions
from deeprelax_ase.screening.process_pool import ProcessPool
from deeprelax_ase.screening.screening import Screening


def call(*command):
    return CliRunner().invoke(app, [str(word) for word in command])


def screened(folder, named, *options):
    for name, atoms in named.items():
        atoms.info = {"id": name}
    write(folder / "in.extxyz", list(named.values()))
    output = folder / "out.parquet"
    result = call("screen", folder / "in.extxyz", "-o", output, "--workers", 1, *options)
    assert result.exit_code == 0, result.stderr
    return output


def periodic(atoms):
    atoms.pbc = True
    return atoms


def bilayer(shift, height=20.0):
    one, other = graphene(), graphene()
    other.positions += [0, shift, 3.35]
    both = one + other
    both.set_cell([*one.cell[:2], [0, 0, height]])
    return periodic(both)


def on_platinum(site):
    slab = fcc111("Pt", (2, 2, 3), vacuum=10)
    add_adsorbate(slab, "O", 1.3, site)
    return periodic(slab)


def in_a_box(name):
    atoms = molecule(name)
    atoms.set_cell([15] * 3)
    atoms.center()
    return periodic(atoms)


def test_vacuum_does_not_decide_what_is_a_duplicate(tmp_path):
    sheet = {"kind": "2H", "a": 3.18}
    named = {
        "2H": periodic(mx2("MoS2", **sheet, vacuum=10)),
        "more vacuum": periodic(mx2("MoS2", **sheet, vacuum=15)),
        "by itself": mx2("MoS2", **sheet, vacuum=10),
        "without a cell": mx2("MoS2", **sheet),
        "1T": periodic(mx2("MoS2", kind="1T", a=3.18, vacuum=10)),
        "AA": bilayer(0.0),
        "AB": bilayer(1.42),
        "AB in a larger box": bilayer(1.42, 30.0),
        "ethanol": in_a_box("CH3CH2OH"),
        "ether": in_a_box("CH3OCH3"),
        **{site: on_platinum(site) for site in ("ontop", "hcp", "fcc", "bridge")},
        "rocksalt": bulk("MgO", "rocksalt", a=4.2),
        "its cube": bulk("MgO", "rocksalt", a=4.25, cubic=True),
        "CsCl": bulk("MgO", "cesiumchloride", a=2.6),
    }
    output = screened(tmp_path, named, "--deduplicate")
    rows = {row["id"]: row["group"] for row in pq.read_table(output).to_pylist()}
    groups = {}
    for name, group in rows.items():
        groups.setdefault(group, set()).add(name)
    several = [names for names in groups.values() if len(names) > 1]
    assert several == [
        {"2H", "more vacuum", "by itself", "without a cell"},
        {"AB", "AB in a larger box"},
        {"rocksalt", "its cube"},
    ]


def test_what_does_not_repeat_is_exported_in_a_box(tmp_path):
    slab = fcc111("Cu", (1, 1, 4), a=3.75, vacuum=0.5)
    benzene = molecule("C6H6")
    benzene.cell = [3, 3, 3]
    output = screened(tmp_path, {"slab": slab, "benzene": benzene, "bare": molecule("H2O")})
    assert call("export", output, tmp_path / "files").exit_code == 0
    for name, alone in (("slab", slab), ("benzene", benzene), ("bare", molecule("H2O"))):
        boxed = read(tmp_path / "files" / f"{name}.cif")
        shortest = [
            np.min(atoms.get_all_distances(mic=True) + 9 * np.eye(len(atoms)))
            for atoms in (boxed, alone)
        ]
        assert shortest[0] > 0.9 * shortest[1]
        assert boxed.cell.lengths().max() > 15
    for form in ("cif", "vasp"):
        write(tmp_path / "bare.extxyz", fcc111("Cu", (1, 1, 4)))
        result = call("relax", tmp_path / "bare.extxyz", "-o", tmp_path / f"bare.{form}")
        assert result.exit_code == 0, result.stderr
        assert 21 < read(tmp_path / f"bare.{form}").cell.lengths()[2] < 22


def test_long_ids_become_names_of_files(tmp_path):
    output = screened(tmp_path, {"first": bulk("Cu"), "\u914d" * 90: bulk("Al")})
    result = call("export", output, tmp_path / "files")
    assert result.exit_code == 0, result.stderr
    assert len(list((tmp_path / "files").iterdir())) == 2
    again = call("export", output, output)
    assert "is a file: name a folder" in again.stderr


@pytest.mark.parametrize("ending", ["extxyz", "parquet"])
def test_a_merge_takes_limit_and_duplicates_from_its_shares(tmp_path, ending):
    copper = {"a": bulk("Cu"), "b": bulk("Cu", cubic=True)}
    output = screened(tmp_path, copper, "--max-error", 0.1, "--deduplicate")
    result = call("merge", output, "-o", tmp_path / f"merged.{ending}")
    assert result.exit_code == 0, result.stderr
    assert "trusted (at most 0.1 Å): 2" in result.stdout
    assert "different structures: 1" in result.stdout


def test_single_tasks_of_an_array_keep_their_share(tmp_path, monkeypatch):
    for name, value in (("ID", 2), ("MIN", 2), ("MAX", 2), ("COUNT", 1)):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    crystals = {str(k): bulk("Cu", a=3.6 + k / 100) for k in range(3)}
    screened(tmp_path, crystals, "--shard", "slurm/3")
    (share,) = tmp_path.glob("out-*.parquet")
    assert share.name == "out-2-of-3.parquet"
    assert [row["id"] for row in pq.read_table(share).to_pylist()] == ["1"]


def test_an_output_that_is_an_input_is_refused(tmp_path):
    write(tmp_path / "a.cif", bulk("MgO", "rocksalt", a=4.6))
    write(tmp_path / "a_relaxed.cif", bulk("NaCl", "rocksalt", a=5.9))
    result = call("relax", tmp_path / "a.cif", tmp_path / "a_relaxed.cif", "--overwrite")
    assert result.exit_code == 1
    assert "is an input as well" in result.stderr
    assert "Na" in (tmp_path / "a_relaxed.cif").read_text()
    assert (tmp_path / "a_relaxed_relaxed.cif").exists()


def test_what_came_before_an_error_is_not_lost():
    def broken():
        yield from (bulk("MgO", "rocksalt", a=4.3) for _ in range(3))
        msg = "file 4 is broken"
        raise RuntimeError(msg)

    results = []
    with pytest.raises(RuntimeError, match="file 4"):
        results.extend(iter(Relaxer().relax_many(broken())))
    assert len(results) == 3


RUN = "IBRION = 2\nNSW = 50\nISIF = {}\n{}"


def test_the_report_is_of_the_functional_and_what_was_held(tmp_path):
    for name, isif, tags in (("sol", 3, "GGA = PS\n"), ("held", 2, "")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        crystal = bulk("MgO", "rocksalt", a=4.5, cubic=True)
        crystal.rattle(0.1, seed=1)
        write(tmp_path / "runs" / name / "POSCAR", crystal, format="vasp")
        (tmp_path / "runs" / name / "INCAR").write_text(RUN.format(isif, tags))
    output, page = tmp_path / "out.parquet", tmp_path / "page.html"
    result = call("screen", tmp_path / "runs", "-o", output, "--workers", 1, "--report", page)
    assert result.exit_code == 0, result.stderr
    rows = {row["id"]: row for row in pq.read_table(output).to_pylist()}
    assert sorted(row["functional"] for row in rows.values()) == ["PBE", "PBEsol"]
    text = page.read_text()
    assert "2 structures, relaxed to PBE, PBEsol by" in text
    data = json.loads(re.search(r'id="structures"[^>]*>(.*?)</script>', text, re.DOTALL)[1])
    for crystal in data["best"] + data["worst"]:
        errors = {bond[-1] for bond in crystal["bonds"]}
        assert errors
        is_sol = "sol" in crystal["title"]  # what INCAR holds is not stored
        assert (None not in errors) == is_sol


def test_what_is_fixed_stays_fixed(tmp_path):
    slab = fcc111("Al", (1, 1, 3), vacuum=8)
    slab.set_constraint(FixAtoms([0, 1]))
    output = screened(tmp_path, {"slab": slab, "bulk": bulk("Al", a=4.2)})
    fixed, free = pq.read_table(output)["fixed"].to_pylist()
    assert (fixed, free) == ([True, True, False], None)
    for name in ("again.extxyz", "again.db"):
        result = call("screen", output, "-o", tmp_path / name, "--workers", 1)
        assert result.exit_code == 0, result.stderr
        one, other = read(tmp_path / name, ":")
        assert one.constraints[0].index.tolist() == [0, 1]
        assert not other.constraints
    assert call("export", output, tmp_path / "out", "--format", "poscar").exit_code == 0
    text = (tmp_path / "out" / "slab.vasp").read_text()
    assert text.count("F F F") == 2
    assert "Selective" not in (tmp_path / "out" / "bulk.vasp").read_text()


def test_single_atoms_are_of_groups_too(tmp_path):
    alone = molecule("H", vacuum=6)
    named = {"one": alone, "two": alone.copy(), "mgo": bulk("MgO", "rocksalt", a=4.3)}
    output = screened(tmp_path, named, "--deduplicate")
    assert pq.read_table(output)["representative"].to_pylist() == [True, False, True]
    assert call("export", output, tmp_path / "out", "--unique").exit_code == 0
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {"one", "mgo"}


def test_a_report_is_none_of_the_shares(tmp_path):
    output = screened(tmp_path, {"mgo": bulk("MgO", "rocksalt", a=4.3)})
    before = output.read_bytes()
    arguments = ("-o", tmp_path / "all.parquet", "--report", output, "--overwrite")
    result = call("merge", output, *arguments)
    assert result.exit_code == 2
    assert "is an input as well: name another report" in result.stderr
    assert output.read_bytes() == before


def test_links_of_outputs_stay(tmp_path):
    (tmp_path / "scratch").mkdir()
    link = tmp_path / "out.parquet"
    link.symlink_to(tmp_path / "scratch" / "out.parquet")
    screened(tmp_path, {"mgo": bulk("MgO", "rocksalt", a=4.3)})
    assert link.is_symlink()
    assert len(pq.read_table(tmp_path / "scratch" / "out.parquet")) == 1


def test_inputs_that_change_meanwhile_are_told(tmp_path):
    write(tmp_path / "a.cif", bulk("MgO", "rocksalt", a=4.3))
    options = RelaxOptions()
    run = Screening([str(tmp_path)], tmp_path / "out.parquet", options)
    write(tmp_path / "a.cif", bulk("NaCl", "rocksalt", a=5.8) * (2, 1, 1))
    with pytest.warns(UserWarning, match="changed while it was read"):
        run.relax(lambda: ProcessPool(options, 1))


def test_rows_of_several_databases_have_ids_of_their_own(tmp_path):
    for name in ("one.db", "two.db"):
        write(tmp_path / name, bulk("MgO", "rocksalt", a=4.3))
    names = [tmp_path / "one.db", tmp_path / "two.db"]
    output = tmp_path / "out.parquet"
    assert call("screen", *names, "-o", output, "--workers", 1).exit_code == 0
    ids = pq.read_table(output)["id"].to_pylist()
    assert ids == [f"{name}[1]" for name in names]
    assert call("screen", names[0], "-o", tmp_path / "1.parquet", "--workers", 1).exit_code == 0
    assert pq.read_table(tmp_path / "1.parquet")["id"].to_pylist() == ["1"]
