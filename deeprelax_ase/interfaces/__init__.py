"""Front-ends for ASE, pymatgen, jobflow and the inputs of DFT codes."""
