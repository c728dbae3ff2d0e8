"""The command `deeprelax`, which is `python -m deeprelax_ase`, too."""

import sys


def main() -> None:
    """Run the command line; interrupted while its libraries are read, it says so and ends."""
    try:
        from deeprelax_ase.cli import main as run
    except KeyboardInterrupt:
        print("Aborted.", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
