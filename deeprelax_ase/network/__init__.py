"""PaEGNN, the network (Sec. 4.3), its graph (4.2), heads (4.4) and weights."""
