"""What is measured: the sets, and the rivals on each.

A set is the validation pairs of one file whose targets are of one functional. A rival is asked
only where it knows the functional.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks.cases import Case, choose_cases

_MOST = 200


class Set(NamedTuple):
    """Crystals that accuracy is measured on.

    Attributes:
        file: Stem of the file of pairs.
        functional: Of the targets.
    """

    file: str
    functional: str

    def __str__(self) -> str:
        return f"{self.file} ({self.functional})"

    def cases(self, folder: Path) -> list[Case]:
        """At most 200 crystals, evenly spaced.

        Raises:
            ValueError: The folder has no such file, or the file no such crystal.
        """
        return choose_cases(
            folder / f"{self.file}.parquet", _MOST, "val", functional=self.functional
        )


DFT_SETS = (
    Set("hypothetical", "PBE"),
    Set("functional", "r2SCAN"),
    Set("substitution", "PBE"),
    Set("substitution", "r2SCAN"),
    Set("substitution_2d", "PBE"),
    Set("battery", "PBE"),
    Set("orderings", "PBE"),
    Set("heusler", "PBE"),
)
"""Targets by DFT."""
TAUGHT_SETS: Mapping[Set, tuple[str, ...]] = {
    **{
        Set(name, "PBE"): ("tensornet",)
        for name in (
            "decorations",
            "random",
            "oxides",
            "monolayers",
            "sheets",
            "ions",
            "slabs",
            "adsorbates",
        )
    },
    Set("defects", "PBE"): ("nequix",),
}
"""Targets by one potential, mostly, and the rivals that are the other one."""
KNOWN: Mapping[str, tuple[str, ...]] = {
    "nequix": ("PBE",),
    "tensornet": ("PBE", "r2SCAN"),
    "m3gnet": ("PBE",),
    "chgnet": ("PBE", "r2SCAN"),
    "sevennet": ("PBE",),
}
"""Functionals that a rival's models were trained on."""
STEP_SETS = (Set("hypothetical", "PBE"), Set("battery", "PBE"))
STEP_RIVALS = ("nequix", "tensornet", "m3gnet", "chgnet")
CLIENT_SETS = (Set("hypothetical", "PBE"), Set("substitution", "PBE"))
CLIENT_CRYSTALS = 20
CLIENT_OPTIMIZERS: Mapping[str, tuple[str, ...]] = {
    "matcalc": ("FIRE", "BFGS", "LBFGS"),
    "pymatgen": ("FIRE",),
    "quacc": ("FIRE",),
    "janus": ("FIRE",),
    "atomate2": ("FIRE",),
}
"""All of them drive the same optimizers of ASE: one is enough for the others."""
JUDGE = "nequix"
"""The potential whose energies are compared, on `JUDGED`."""
JUDGED = (Set("hypothetical", "PBE"), Set("substitution", "PBE"), Set("battery", "PBE"))
PICTURED = ("hypothetical", "NaCdAs_NbCrN_99")
"""File of pairs and the crystal of its validation split that the manual opens with."""
SPEED_CRYSTALS, SPEED_ATOMS = 50, (2, 40)
SPEED_RIVALS = ("m3gnet", "chgnet", "tensornet", "nequix")
KIND_FILES = (
    "hypothetical",
    "substitution",
    "functional",
    "battery",
    "heusler",
    "orderings",
    "substitution_2d",
    "exfoliation_2d",
)
TEST_FILES = (
    "hypothetical",
    "substitution",
    "substitution_2d",
    "functional",
    "battery",
    "heusler",
    "orderings",
    "exfoliation_2d",
    "defects_and_hydrides",
)
