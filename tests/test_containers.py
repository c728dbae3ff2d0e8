"""Files of records: JSON of several projects, CSV, parquet, zip; and their limits."""

import bz2
import csv
import io
import json
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase.build import bulk
from ase.io import write
from pymatgen.core import Structure

from deeprelax_ase.files import archives, file_text
from deeprelax_ase.files.read_files import items_of_table, read_structures
from deeprelax_ase.files.records import read_record
from deeprelax_ase.files.write_files import output_path
from deeprelax_ase.screening.inputs import ScreenInput
from deeprelax_ase.structures.validation import StructureError

ATOMS = bulk("MgO", "rocksalt", a=4.3)
STRUCTURE = Structure.from_ase_atoms(ATOMS)
RECORD = json.loads(json.dumps(STRUCTURE.as_dict()))
CIF = STRUCTURE.to(fmt="cif")
POSCAR = STRUCTURE.to(fmt="poscar")
OPTIMADE = {
    "id": "mp-1",
    "attributes": {
        "lattice_vectors": STRUCTURE.lattice.matrix.tolist(),
        "cartesian_site_positions": STRUCTURE.cart_coords.tolist(),
        "species_at_sites": ["Mg", "O"],
        "species": [
            {"name": "Mg", "chemical_symbols": ["Mg"], "concentration": [1.0]},
            {"name": "O", "chemical_symbols": ["O"], "concentration": [1.0]},
        ],
    },
}
JARVIS = {
    "lattice_mat": STRUCTURE.lattice.matrix.tolist(),
    "coords": STRUCTURE.cart_coords.tolist(),
    "elements": ["Mg", "O"],
    "cartesian": True,
}


def table(*rows):
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def zipped(**members):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "."), content)
    return data.getvalue()


def parquet(**columns):
    data = io.BytesIO()
    pq.write_table(pa.table(columns), data)
    return data.getvalue()


def dumped(value, encoding="utf-8"):
    return json.dumps(value).encode(encoding)


FILES = {
    "one.json": (dumped(RECORD), ["one.json"]),
    "list.json": (dumped([RECORD, RECORD]), ["list.json[0]", "list.json[1]"]),
    "byid.json": (dumped({"a": RECORD, "b": {"structure": RECORD}}), ["a", "b"]),
    "entries.json": (dumped({"entries": [{"structure": RECORD, "entry_id": "agm1"}]}), ["agm1"]),
    "later.json": (dumped({"n": 1, "entries": [{"structure": RECORD}]}), ["later.json[0]"]),
    "agm.json.bz2": (
        bz2.compress(dumped({"entries": [{"structure": RECORD, "entry_id": None}]})),
        ["agm.json.bz2[0]"],
    ),
    "mp.json": (dumped({"data": [{"material_id": "mp-3", "structure": RECORD}]}), ["mp-3"]),
    "optimade.json": (dumped({"data": [OPTIMADE], "meta": {}}), ["mp-1"]),
    "single.json": (dumped({"data": OPTIMADE}), ["mp-1"]),
    "jarvis.json": (dumped([{"jid": "JVASP-1", "atoms": JARVIS}]), ["JVASP-1"]),
    "atoms.json": (dumped(JARVIS), ["atoms.json"]),
    "utf16.json": (dumped([RECORD], "utf-16"), ["utf16.json[0]"]),
    "bom.json": (dumped([RECORD], "utf-8-sig"), ["bom.json[0]"]),
    "lines.jsonl": (
        dumped({"id": "x", "cif": CIF}) + b"\n" + dumped(RECORD),
        ["x", "lines.jsonl[1]"],
    ),
    "mp20.csv": (
        table(["", "material_id", "cif"], [0, "mp-9", CIF], [1, "", CIF]).encode(),
        ["mp-9", "mp20.csv[1]"],
    ),
    "semicolons.csv": (f"id;name;cif\nq;a,b;{chr(34)}{CIF}{chr(34)}\n".encode(), ["q"]),
    "tabs.csv": (f"id\tcif\nq\t{chr(34)}{CIF}{chr(34)}\n".encode(), ["q"]),
    "json.csv": (table(["id", "structure"], ["q", json.dumps(RECORD)]).encode(), ["q"]),
    "bom.csv": (table(["id", "CIF"], ["q", CIF]).encode("utf-8-sig"), ["q"]),
    "long.csv": (table(["cif"], ["#" + "x" * 200_000 + "\n" + CIF]).encode(), ["long.csv[0]"]),
    "text.parquet": (parquet(material_id=["k"], structure=[json.dumps(RECORD)]), ["k"]),
    "cif.parquet": (parquet(x=["junk"], cif=[CIF]), ["cif.parquet[0]"]),
    "gen.zip": (
        zipped(a__cif=CIF, POSCAR=POSCAR, c__json=json.dumps(RECORD)),
        ["gen.zip/a.cif", "gen.zip/POSCAR", "gen.zip/c.json"],
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_every_container_is_taken_apart(tmp_path, name):
    data, ids = FILES[name]
    (tmp_path / name).write_bytes(data)
    entries = ScreenInput([str(tmp_path / name)])
    found = [one for item in entries for one in item.read()]
    assert [own for own, _ in found] == ids
    assert entries.survey().count == len(ids)
    for _, structure in found:
        assert structure.volume == pytest.approx(4.3**3 / 4, rel=1e-6)
        assert structure.composition.reduced_formula == "MgO"
    if len(ids) > 1:
        with pytest.raises(StructureError, match="several structures: relax them with deeprelax"):
            read_structures(tmp_path / name)
        return
    source = read_structures(tmp_path / name)
    assert len(source.structures) == 1
    if ".json" in name:
        target = output_path(source, None)
        assert target.name == name.replace(".json", "_relaxed.json")
        assert ("else the file holds" in str(source.notes)) == (name != "one.json")
    else:
        with pytest.raises(StructureError, match="can only be read: name an --output"):
            output_path(source, None)


def without(key):
    return {"data": [{"attributes": {k: v for k, v in OPTIMADE["attributes"].items() if k != key}}]}


def encrypted():
    data = bytearray(zipped(a__cif=CIF))
    data[6] |= 1
    data[data.find(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def corrupt():
    data = bytearray(zipped(a__cif=CIF))
    data[60:90] = bytes(30)
    return bytes(data)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.csv", b"formula,energy\nMgO,1\n", "the columns formula, energy: a column of CIFs"),
        ("a.csv", b"id,cif\nx,nonsense\n", "'nonsense' is no CIF and no JSON of a structure"),
        ("a.csv", b"id,cif\nx,\n", "there is no structure in its row"),
        ("a.parquet", parquet(id=["k"], y=[1]), "it has the columns id, y: a column of CIFs"),
        ("a.json", dumped({"foo": 1, "bar": 2}), "its keys are 'foo', 'bar'"),
        ("a.json", b'{"lattice": ', "cannot be read: broken JSON"),
        ("a.json", b"3", "'3', which is no structure"),
        ("a.json", b"[]", "holds no structure"),
        ("a.json", dumped([{"structure": {"lattice": 1, "sites": 2}}]), "not laid out as known"),
        ("a.json", dumped(without("species")), "an OPTIMADE structure without species"),
        ("a.json", dumped(without("species_at_sites")), "without species_at_sites"),
        ("a.json", dumped(without("lattice_vectors")), "without lattice_vectors"),
        ("a.zip", b"hello", "no zip archive, or a broken one"),
        ("a.zip", zipped(), "holds no structure"),
        ("a.zip", encrypted(), "a.cif is encrypted"),
        ("a.zip", corrupt(), "a.cif cannot be unpacked"),
        ("a.zip", zipped(b__zip=b"x"), "is a file of many structures in an archive"),
        ("a.zip", zipped(a__cif=b"0" * (30 << 20)), "200 times its size: it looks like a zip bomb"),
        ("a.cif.gz", b"hello", "cannot be unpacked"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(StructureError, match=words) as caught:
        read_structures(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_limits_on_the_unpacked_size(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    (tmp_path / "a.zip").write_bytes(zipped(a__cif=rng.bytes(2000), b__cif=rng.bytes(2000)))
    monkeypatch.setattr(archives, "MAX_MEMBER", 1000)
    with pytest.raises(StructureError, match="more than the limit of"):
        next(iter(ScreenInput([str(tmp_path / "a.zip")]))).read()
    monkeypatch.setattr(archives, "MAX_UNPACKED", 3000)
    with pytest.raises(StructureError, match=r"unpacks to .* MiB, more than the limit"):
        read_structures(tmp_path / "a.zip")
    (tmp_path / "a.cif.bz2").write_bytes(bz2.compress(rng.bytes(2000)))
    monkeypatch.setattr(file_text, "MAX_UNPACKED", 1000)
    with pytest.raises(StructureError, match="unpacks to more than"):
        read_structures(tmp_path / "a.cif.bz2")


def test_a_directory_of_an_archive_that_lies(tmp_path, monkeypatch):
    data = bytearray(zipped(a__cif="#" * 5000))
    at = data.find(b"PK\x01\x02") + 24
    data[at : at + 4] = (10).to_bytes(4, "little")  # the size it says that it unpacks to
    (tmp_path / "a.zip").write_bytes(data)
    monkeypatch.setattr(archives, "MAX_MEMBER", 1000)
    with pytest.raises(StructureError, match=r"a\.zip"):
        read_structures(tmp_path / "a.zip")


def test_a_site_of_no_species_and_one_of_two():
    record = json.loads(json.dumps(OPTIMADE))
    record["attributes"]["species_at_sites"][1] = "Q"
    with pytest.raises(StructureError, match="a site of 'Q', which is no species of it"):
        read_record("x", record)
    record = json.loads(json.dumps(OPTIMADE))
    record["attributes"]["species"][1].update(
        chemical_symbols=["O", "vacancy"], concentration=[0.5, 0.5]
    )
    ((_, structure),) = read_record("x", record)
    assert not structure.is_ordered


def test_a_database_of_ase_in_json_stays_one(tmp_path):
    write(tmp_path / "ase.json", [ATOMS, ATOMS])
    source = read_structures(tmp_path / "ase.json")
    assert (source.format, len(source.structures)) == ("json", 2)


def test_a_run_in_an_archive_is_not_relaxed_without_its_incar(tmp_path):
    path = tmp_path / "runs.zip"
    incar = "NSW = 9\nIBRION = 2\nISIF = 2\n"
    members = {"run/POSCAR": POSCAR, "run/INCAR": incar, "alone/POSCAR": POSCAR}
    path.write_bytes(zipped(**members))
    items = {item.id: item for item in ScreenInput([str(path)])}
    assert len(items["runs.zip/alone/POSCAR"].read()) == 1
    with pytest.raises(StructureError, match="belongs to the INCAR in the archive: unpack it"):
        items["runs.zip/run/POSCAR"].read()


def test_what_lies_beside_structures_in_an_archive_is_no_entry(tmp_path):
    members = {
        "run/POSCAR.vasp": POSCAR,
        "run/KPOINTS": "k",
        "INCAR_MgO.vasp": POSCAR,
        "aims/geometry.in": "lattice_vector 4 0 0\n",
        "aims/control.in": "xc pbe\n",
        "many.json": json.dumps([{"a": 1}, {"a": 2}]),
    }
    path = tmp_path / "runs.zip"
    path.write_bytes(zipped(**members))
    items = {item.id: item for item in ScreenInput([str(path)])}
    assert set(items) == {f"runs.zip/{name}" for name in members if name != "run/KPOINTS"}
    with pytest.raises(StructureError, match=r"belongs to the control.in in the archive"):
        items["runs.zip/aims/geometry.in"].read()
    with pytest.raises(StructureError, match="in an archive: unpack it, and give that file"):
        items["runs.zip/many.json"].read()


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.jsonl", ""), ("a.jsonl", "\n\n"), ("a.json", "[ ]"), ("a.csv", "id,cif\n")],
)
def test_a_file_of_records_that_holds_none_is_told_of(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    (item,) = items_of_table(name, tmp_path / name)
    with pytest.raises(StructureError, match=rf"{name} holds no structure"):
        item.read()
