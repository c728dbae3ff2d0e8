"""Read and check crystals; find their vacuum and symmetry. No torch here."""
