"""PaEGNN, the network (Sec. 4.3) and its heads (Sec. 4.4)."""

from deeprelax_ase.model.network import PaEGNN

__all__ = ["PaEGNN"]
