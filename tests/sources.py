"""Small copies of published data sets and runs, in their own formats, of textbook crystals."""

import csv
import pickle

import numpy as np
from ase.build import bulk, mx2
from ase.db import connect
from ase.io import write
from pymatgen.io.ase import AseAtomsAdaptor

RNG = np.random.default_rng(7)


def bulk_pair(seed=0):
    """Unrelaxed and relaxed atoms, and the moves and the deformation between them."""
    rng = np.random.default_rng(seed)
    before = bulk("MgO", "rocksalt", a=4.2) * (2, 1, 1)
    before.symbols[0] = "Ti"
    before.rattle(0.1, seed=seed)
    stretch = rng.uniform(-0.04, 0.04, size=(3, 3))
    deformation = np.eye(3) + (stretch + stretch.T) / 2
    moves = rng.normal(scale=0.05, size=(4, 3))
    moves -= moves.mean(axis=0)
    after = before.copy()
    after.set_cell(before.cell[:] @ deformation)
    after.positions = (before.positions + moves) @ deformation
    return before, after, moves, deformation


def sheet_pair():
    before = mx2("MoS2", a=3.2, vacuum=8.0)
    before.pbc = [True, True, False]
    deformation = np.diag([1.02, 1.02, 1.0])
    moves = np.array([[0, 0, 0], [0, 0, 0.05], [0, 0, -0.05]])
    after = before.copy()
    after.set_cell(before.cell[:] @ deformation)
    after.positions = (before.positions + moves) @ deformation
    return before, after, moves, deformation


def xmno(folder):
    for number, split in enumerate(("train", "val", "test")):
        before, after, *_ = bulk_pair(number)
        write(folder / f"m{number}_unrelaxed.cif", before)
        write(folder / f"m{number}.cif", after)
        (folder / f"id_prop_{split}.csv").write_text(f"m{number},-1.5\n")
    return folder


def deeprelax_xmno(folder):
    """The names DeepRelax's own copy of the same set has."""
    for number, split in enumerate(("train", "val", "test")):
        before, after, *_ = bulk_pair(number)
        write(folder / f"m{number}_unrelaxed.cif", before)
        write(folder / f"m{number}_relaxed.cif", after)
        rows = f"m{number}_relaxed,-1.5\nm{number}_unrelaxed,-1.4\n"
        (folder / f"id_prop_{split}_all.csv").write_text(rows)
    return folder


def definet(folder):
    for material in ("MoS2", "WSe2"):
        cifs = folder / material / "CIF_POSCAR"
        cifs.mkdir(parents=True)
        for number, split in enumerate(("train", "val", "test")):
            before, after, *_ = bulk_pair(number)
            write(cifs / f"d{number}_unrelaxed.cif", before)
            write(cifs / f"d{number}_relaxed.cif", after)
            with (folder / material / f"{split}.csv").open("w", newline="") as stream:
                csv.writer(stream).writerows([["atoms_id", "energy"], [f"d{number}", "-1.0"]])
    return folder


def mpf(folder, protocol=4):
    to_structure = AseAtomsAdaptor.get_structure
    for block in range(2):
        content = {}
        for number in range(2):
            before, after, *_ = bulk_pair(2 * block + number)
            middle = before.copy()
            content[f"mp-{2 * block + number}"] = {
                "structure": [to_structure(a) for a in (before, middle, after)],
                "energy": [-1.0, -1.5, np.float64(-2.0)],
                "force": [np.zeros((4, 3)).tolist()] * 3,
                "stress": [np.zeros((3, 3))] * 3,
            }
        (folder / f"block_{block}.p").write_bytes(pickle.dumps(content, protocol))
    return folder


def c2db(folder):
    with connect(folder / "c2db.db") as database:
        for seed in range(3):
            before, after, *_ = sheet_pair()
            data = {"unrelaxed.json": {"1": as_json(before)}}
            database.write(after, data=data, uid=f"2MoS2-{seed}")
    return folder / "c2db.db"


def two_databases(folder):
    with connect(folder / "unrelaxed.db") as first, connect(folder / "relaxed.db") as second:
        for seed in range(3):
            before, after, *_ = sheet_pair()
            first.write(before, folder=f"/tree/2MoS2-{seed}")
            second.write(after, folder=f"/tree/2MoS2-{seed}")
    return folder


def as_json(atoms):
    return {
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
        "cell": atoms.cell[:].tolist(),
        "pbc": [True, True, False],
    }


def vasp_contcar(folder):
    before, after, *_ = bulk_pair()
    write(folder / "POSCAR", before, format="vasp")
    write(folder / "CONTCAR", after, format="vasp")
    return folder


def vasp_xdatcar(folder):
    before, after, *_ = bulk_pair()
    write(folder / "XDATCAR", [before, before, after], format="vasp-xdatcar")
    return folder


def vasp_xml(folder, gga="PS"):
    before, after, *_ = bulk_pair()
    (folder / "vasprun.xml").write_text(vasprun([before, before, after], gga))
    return folder


def trajectory(folder):
    before, after, *_ = bulk_pair()
    write(folder / "relax.traj", [before, before, after])
    return folder / "relax.traj"


def vectors(name, rows):
    lines = "".join(f"<v> {' '.join(f'{x:.12f}' for x in row)} </v>\n" for row in rows)
    return f'<varray name="{name}">\n{lines}</varray>\n'


def structure_xml(atoms, name=""):
    label = f' name="{name}"' if name else ""
    reciprocal = np.linalg.inv(atoms.cell[:]).T
    return (
        f"<structure{label}>\n<crystal>\n{vectors('basis', atoms.cell[:])}"
        f'<i name="volume"> {atoms.get_volume():.8f} </i>\n{vectors("rec_basis", reciprocal)}'
        f"</crystal>\n{vectors('positions', atoms.get_scaled_positions(wrap=False))}</structure>\n"
    )


def vasprun(frames, gga):
    """As much of a vasprun.xml as says where the atoms were."""
    atoms = frames[0]
    symbols = atoms.get_chemical_symbols()
    kinds = list(dict.fromkeys(symbols))
    sites = "".join(f"<rc><c>{s}</c><c>{kinds.index(s) + 1:4d}</c></rc>\n" for s in symbols)
    types = "".join(
        f"<rc><c>{symbols.count(k):4d}</c><c>{k}</c><c> 20.0</c><c> 4.0</c><c>PAW_PBE {k} 06Sep2000"
        "</c></rc>\n"
        for k in kinds
    )
    energy = (
        '<energy>\n<i name="e_fr_energy"> -1.0 </i>\n<i name="e_wo_entrp"> -1.0 </i>\n'
        '<i name="e_0_energy"> -1.0 </i>\n</energy>\n'
    )
    steps = "".join(
        f"<calculation>\n<scstep>\n{energy}</scstep>\n{structure_xml(frame)}"
        f"{vectors('forces', np.zeros((len(atoms), 3)))}{vectors('stress', np.zeros((3, 3)))}"
        f"{energy}</calculation>\n"
        for frame in frames
    )
    return f"""<?xml version="1.0" encoding="ISO-8859-1"?>
<modeling>
<generator><i name="program" type="string">vasp </i><i name="version" type="string">6.3.0 </i>
</generator>
<incar><i type="string" name="GGA">{gga}</i>
<i type="logical" name="LUSE_VDW"> {"T" if gga == "BO" else "F"} </i>
<i type="int" name="NSW">5</i></incar>
<kpoints><generation param="Gamma"><v type="int" name="divisions"> 1 1 1 </v>
<v name="usershift"> 0.0 0.0 0.0 </v></generation>{vectors("kpointlist", [[0, 0, 0]])}
{vectors("weights", [[1]])}</kpoints>
<parameters><separator name="general"><i type="string" name="GGA">{gga}</i>
<i type="int" name="NSW">5</i><i type="int" name="NELM">60</i><i type="int" name="IBRION">2</i>
</separator></parameters>
<atominfo><atoms> {len(atoms)} </atoms><types> {len(kinds)} </types>
<array name="atoms"><dimension dim="1">ion</dimension><field type="string">element</field>
<field type="int">atomtype</field><set>{sites}</set></array>
<array name="atomtypes"><dimension dim="1">type</dimension><field type="int">atomspertype</field>
<field type="string">element</field><field>mass</field><field>valence</field>
<field type="string">pseudopotential</field><set>{types}</set></array></atominfo>
{structure_xml(frames[0], "initialpos")}{steps}{structure_xml(frames[-1], "finalpos")}</modeling>
"""
