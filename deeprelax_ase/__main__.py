"""`python -m deeprelax_ase` is `deeprelax`."""

from deeprelax_ase.cli import main

if __name__ == "__main__":
    main()
