"""Read and write structure files of any format, with the calculation around them. No torch here."""
