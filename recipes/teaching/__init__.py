"""Making pairs by relaxing built inputs with universal potentials."""
