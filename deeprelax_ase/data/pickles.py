"""Reading pickled pymatgen structures without running anything that the pickle names.

A pickle may name any function and have it called. Here, only numpy arrays are made of what they
name; classes of pymatgen become inert stand-ins that hold their attributes, and every other name
is refused. So a file cannot do anything, and structures of any version of pymatgen can be read.
"""

import pickle
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from deeprelax_ase.crystal import Crystal

_MODULES = ("pymatgen.core.", "pymatgen.util.")
_CLASSES = {
    "Structure",
    "IStructure",
    "Lattice",
    "Site",
    "PeriodicSite",
    "PeriodicNeighbor",
    "Composition",
    "Element",
    "ElementBase",
    "Species",
    "Specie",
    "DummySpecies",
    "FloatWithUnit",
    "ArrayWithUnit",
    "Unit",
}
_ISOTOPES = {"D": 1, "T": 1}


class UnsafePickleError(ValueError):
    """A pickle names something that no structure needs."""


class _StandIn:
    """An object of a class of pymatgen, as its attributes; nothing of the class runs."""

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple):  # __dict__ and __slots__
            state = {k: v for part in state if part for k, v in part.items()}
        if isinstance(state, dict):
            self.__dict__.update(state)


def _old_new(kind: Any, base: Any, state: Any) -> _StandIn:
    """How protocols 0 and 1 make an object."""
    if not (kind is _StandIn and base is _StandIn):
        msg = f"the pickle makes a {kind!r} from {state!r}"
        raise UnsafePickleError(msg)
    return _StandIn()


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """How protocol 2 writes bytes."""
    if encoding != "latin1":
        msg = f"the pickle asks for the encoding {encoding!r}"
        raise UnsafePickleError(msg)
    return text.encode("latin1")


def _numpy_names() -> dict[tuple[str, str], Any]:
    """Functions that rebuild arrays and numbers, under the names of numpy 1 and 2."""
    reconstruct, scalar = np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]
    frombuffer = np.zeros(1).__reduce_ex__(5)[0]
    names: dict[tuple[str, str], Any] = {("numpy", "ndarray"): np.ndarray}
    names["numpy", "dtype"] = np.dtype
    for core in ("numpy.core", "numpy._core"):
        names[f"{core}.multiarray", "_reconstruct"] = reconstruct
        names[f"{core}.multiarray", "scalar"] = scalar
        names[f"{core}.numeric", "_frombuffer"] = frombuffer
    return names


_NAMES: dict[tuple[str, str], Any] = _numpy_names() | {("_codecs", "encode"): _latin1}
for _module in ("copyreg", "copy_reg"):
    _NAMES[_module, "_reconstructor"] = _old_new
for _module in ("builtins", "__builtin__"):
    _NAMES[_module, "object"] = _StandIn
    _NAMES |= {(_module, kind.__name__): kind for kind in (set, frozenset, complex, bytearray)}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """What a name stands for; refused unless structures need it."""
        if (module, name) in _NAMES:
            return _NAMES[module, name]
        if module.startswith(_MODULES) and name in _CLASSES:
            return _StandIn
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        msg = (
            f"the pickle names {module}.{name}, which no structure needs: it is not read, because "
            "it could run anything"
        )
        raise UnsafePickleError(msg)


def load_structures(path: Path) -> Any:
    """Content of a pickle, with structures as stand-ins for `crystal_of`.

    Raises:
        UnsafePickleError: It names something other than arrays and structures.
        ValueError: It is no pickle, or not a whole one.
    """
    try:
        with path.open("rb") as stream:
            return _Unpickler(stream, encoding="latin1").load()
    except UnsafePickleError as error:
        msg = f"{path}: {error}"
        raise UnsafePickleError(msg) from None
    except (OSError, MemoryError):
        raise
    except Exception as error:
        msg = f"{path} is no whole pickle of structures ({type(error).__name__}: {error})"
        raise ValueError(msg) from error


def crystal_of(structure: Any) -> Crystal:
    """Crystal of a stand-in for a structure.

    Raises:
        ValueError: It is no ordered structure.
    """
    try:
        matrix = np.array(attrgetter("_lattice._matrix")(structure), dtype=float).reshape(3, 3)
        sites = list(attrgetter("_sites")(structure))
        numbers = [_number(attrgetter("_species._data")(site)) for site in sites]
        scaled = [attrgetter("_frac_coords")(site) for site in sites]
    except (AttributeError, TypeError) as error:
        msg = f"no structure is in its place ({error})"
        raise ValueError(msg) from error
    positions = np.array(scaled, dtype=float).reshape(-1, 3) @ matrix
    return Crystal(np.array(numbers, dtype=np.int64), positions, matrix, np.array([True] * 3))


def _number(amounts: dict[Any, float]) -> int:
    """Atomic number of a site, from stand-ins for elements or species and their amounts."""
    if len(amounts) != 1 or not np.isclose(next(iter(amounts.values())), 1):
        msg = "a site is partly occupied, or by several species"
        raise ValueError(msg)
    species = next(iter(amounts))
    while hasattr(species, "_el"):
        species = attrgetter("_el")(species)
    symbol = str(getattr(species, "_symbol", None) or (*species.args, "?")[0])
    number = _ISOTOPES.get(symbol, atomic_numbers.get(symbol, 0))
    if not number:
        msg = f"{symbol!r} is no element"
        raise ValueError(msg)
    return int(number)
