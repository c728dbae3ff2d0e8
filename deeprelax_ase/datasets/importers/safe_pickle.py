"""Reading pickled pymatgen structures without running anything that the pickle names.

A pickle may name any function and have it called. Here, classes of pymatgen and numpy become inert
stand-ins that hold their attributes; arrays are made of plain numbers alone, from their bytes; and
every other name is refused. So structures of any version of pymatgen can be read.
"""

import pickle
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from deeprelax_ase.structures.crystal import Crystal
from deeprelax_ase.structures.elements import atomic_numbers

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


class _Dtype(_StandIn):
    """A type of numbers, by its name; nothing that could hold objects or fields."""

    is_swapped = False

    def __setstate__(self, state: Any) -> None:
        self.is_swapped = state[1] == ">"

    def real(self) -> np.dtype[Any]:
        """The type itself."""
        code = str(self.args[0]) if self.args else ""
        if code.lstrip("<>=|") not in _NUMBERS:
            msg = f"an array holds {code!r}, not plain numbers"
            raise UnsafePickleError(msg)
        return np.dtype(code).newbyteorder(">" if self.is_swapped else "<")


class _Array(_StandIn):
    """An array of plain numbers, made of its bytes."""

    values: Any = ()

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, raw = state
        self.values = _from_bytes(raw, dtype, shape, "F" if is_fortran else "C")

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.array(self.values, dtype=dtype)


class _Maker:
    """A function that a pickle may call, and cannot change."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)

    def __setstate__(self, state: Any) -> None:
        msg = "the pickle changes a function"
        raise UnsafePickleError(msg)


def _from_bytes(raw: Any, dtype: Any, shape: Any, order: Any = "C") -> np.ndarray:
    """An array of plain numbers."""
    if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes | bytearray):
        msg = "an array holds something other than plain numbers"
        raise UnsafePickleError(msg)
    return np.frombuffer(bytes(raw), dtype.real()).reshape(shape, order=order).copy()


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any = "C") -> _Array:
    """How protocol 5 writes an array."""
    array = _Array()
    array.values = _from_bytes(raw, dtype, shape, order)
    return array


def _scalar(dtype: Any, raw: Any) -> Any:
    return _from_bytes(raw, dtype, ()).item()


def _empty_array(*_: Any) -> _Array:
    """Before its state is known."""
    return _Array()


def _old_new(kind: Any, base: Any, state: Any) -> _StandIn:
    """How protocols 0 and 1 make an object."""
    if not (kind is _StandIn and base is _StandIn):
        msg = f"the pickle makes a {kind!r} from {state!r}"
        raise UnsafePickleError(msg)
    return _StandIn()


def _latin1(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes."""
    if encoding != "latin1":
        msg = f"the pickle asks for the encoding {encoding!r}"
        raise UnsafePickleError(msg)
    return text.encode("latin1")


def _bytearray(values: Any = b"", encoding: str = "latin-1") -> bytearray:
    """How protocols below 5 write one; a number would be a size to be allocated."""
    if isinstance(values, str):
        return bytearray(_latin1(values, encoding.replace("-", "")))
    if not isinstance(values, bytes):
        msg = f"the pickle makes a bytearray of {type(values).__name__}"
        raise UnsafePickleError(msg)
    return bytearray(values)


_NUMBERS = {f"{kind}{size}" for kind in "fiu" for size in (1, 2, 4, 8)} - {"f1"} | {"b1"}
_NAMES: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): _Maker(_latin1),
    ("collections", "OrderedDict"): dict,
    ("numpy", "ndarray"): _StandIn,
    ("numpy", "dtype"): _Dtype,
}
for _core in ("numpy.core", "numpy._core"):
    _NAMES[f"{_core}.multiarray", "_reconstruct"] = _Maker(_empty_array)
    _NAMES[f"{_core}.multiarray", "scalar"] = _Maker(_scalar)
    _NAMES[f"{_core}.numeric", "_frombuffer"] = _Maker(_from_buffer)
for _module in ("copyreg", "copy_reg"):
    _NAMES[_module, "_reconstructor"] = _Maker(_old_new)
for _module in ("builtins", "__builtin__"):
    _NAMES[_module, "object"] = _StandIn
    _NAMES |= {(_module, kind.__name__): kind for kind in (set, frozenset, complex)}
    _NAMES[_module, "bytearray"] = _Maker(_bytearray)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """What a name stands for; refused unless structures need it."""
        if (module, name) in _NAMES:
            return _NAMES[module, name]
        if module.startswith(_MODULES) and name in _CLASSES:
            return _StandIn
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
    except OSError:
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
    except (AttributeError, TypeError, KeyError) as error:
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
    species = getattr(species, "_el", species)  # a species has its element there
    symbol = str(getattr(species, "_symbol", None) or (*species.args, "?")[0])
    number = _ISOTOPES.get(symbol, atomic_numbers.get(symbol, 0))
    if not number:
        msg = f"{symbol!r} is no element"
        raise ValueError(msg)
    return int(number)
