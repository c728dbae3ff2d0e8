"""Read, check and write crystals; find their vacuum and symmetry. No torch here."""
