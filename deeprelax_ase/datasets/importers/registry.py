"""Every kind of source of pairs."""

from deeprelax_ase.datasets.importers.published import (
    blocks,
    knows_c2db,
    read_c2db,
    read_mpf,
    read_tables,
    read_xmno,
    tables,
)
from deeprelax_ase.datasets.importers.raw_pair import Reader
from deeprelax_ase.datasets.importers.run_folders import (
    read_trajectories,
    read_vasp,
    runs,
    trajectories,
)

READERS = (
    Reader(
        "X-Mn-O",
        "a folder with id_prop_*.csv, NAME.cif and NAME_unrelaxed.cif (X-Mn-O, Cryslator)",
        "PBE",
        lambda path: path.is_dir() and any(path.glob("id_prop_*.csv")),
        read_xmno,
    ),
    Reader(
        "CIF pairs",
        "train.csv, val.csv or test.csv beside a folder of NAME_unrelaxed.cif and "
        "NAME_relaxed.cif (DefiNet, DeepRelax)",
        "PBE",
        lambda path: path.is_dir() and bool(tables(path)),
        read_tables,
    ),
    Reader(
        "MPF.2021.2.8",
        "block_0.p and block_1.p or one of them (MPF.2021.2.8)",
        "PBE",
        lambda path: bool(blocks(path)),
        read_mpf,
    ),
    Reader(
        "C2DB",
        "an ASE database .db with unrelaxed.json in its data, or a folder with unrelaxed.db and "
        "relaxed.db (C2DB)",
        "PBE",
        knows_c2db,
        read_c2db,
    ),
    Reader(
        "VASP",
        "a folder of VASP runs with vasprun.xml, POSCAR and CONTCAR, or XDATCAR",
        "unknown",
        lambda path: bool(runs(path)),
        read_vasp,
    ),
    Reader(
        "trajectory",
        "a trajectory that ASE reads (.traj, .extxyz, .xyz), or a folder of .traj files",
        "unknown",
        lambda path: bool(trajectories(path)),
        read_trajectories,
    ),
)
"""Every kind of source, the first that knows a path reads it."""
