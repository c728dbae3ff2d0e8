"""PaEGNN, one step of the joint solve, and the search for space groups in C, for small crystals."""

try:
    from deeprelax_ase.compiled import _core as core
except ImportError:  # nothing compiled it where it was installed: torch and spglib do its work
    IS_COMPILED = False
else:
    IS_COMPILED = hasattr(core, "predict")
