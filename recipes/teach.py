"""Make pairs of kinds that no public data holds: build inputs, relax them with potentials.

    python -m recipes.teach --data DATA --potentials POTENTIALS --out FOLDER
    python -m recipes.teach --data DATA --out FOLDER --merge recipes/data

The first may be stopped and started again at any time, and run once a core (`--shard 0/4` ...):
what is finished is in the folder, one line a pair, and nothing is made twice.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from deeprelax_ase.cli.common import words_of
from recipes.teaching.hosts import load_held_back, load_hosts
from recipes.teaching.kinds import KINDS, teach_one
from recipes.teaching.potentials import load_potentials
from recipes.teaching.relaxing import Job, run_jobs
from recipes.teaching.store import merge, read_done, to_line


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    options = _parser().parse_args(arguments)
    try:
        if options.merge:
            _merge(options)
        else:
            _teach(options)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {' '.join(words_of(error, options.data).split())}")


def _merge(options: argparse.Namespace) -> None:
    if not any(options.out.glob("*.jsonl")):
        msg = f"{options.out} holds no finished pairs: --out is the folder that they were made in"
        raise ValueError(msg)
    for name, count in sorted(
        merge(options.out, options.merge, load_held_back(options.data)).items()
    ):
        print(f"{count:6d} {name}")


def _teach(options: argparse.Namespace) -> None:
    """Make what is not there yet.

    Raises:
        ValueError: An argument cannot be.
        OSError: A file of data or of a potential is missing, or the folder cannot be written.
    """
    kinds = options.kind or list(KINDS)
    for kind in kinds:
        if kind not in KINDS:
            msg = f"no kind {kind!r}: choose from {', '.join(KINDS)}"
            raise ValueError(msg)
    share, shares = _share(options.shard)
    if options.count is not None and options.count < 1:
        msg = f"--count is {options.count}: it has to be positive"
        raise ValueError(msg)
    if options.potentials is None or not options.potentials.is_dir():
        msg = "--potentials has to name the folder of the potentials' weights"
        raise ValueError(msg)
    import torch

    if options.device == "cpu":
        torch.set_num_threads(1)
    started = time.monotonic()
    hosts = load_hosts(options.data)
    print(f"{len(hosts.bulk)} crystals, {len(hosts.sheets)} sheets to start from", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    done = read_done(options.out)
    order = [
        (kind, index)
        for kind, index in schedule(kinds, options.count)
        if index % shares == share and index not in done[kind]
    ]

    def jobs() -> Iterator[tuple[int, Job]]:
        for number, (kind, index) in enumerate(order):
            yield number, teach_one(kind, index, hosts, options.seed)

    counts: Counter[str] = Counter()
    potentials = load_potentials(options.potentials, options.device)
    path = options.out / f"pairs-{share}-of-{shares}.jsonl"
    is_cut = path.exists() and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8") as stream:
        stream.write("\n" if is_cut else "")
        for number, outcome in run_jobs(jobs(), potentials, options.batch):
            kind, index = order[number]
            stream.write(to_line(kind, index, outcome))
            stream.flush()
            counts[kind if "numbers" in outcome else f"{kind}: dropped"] += 1
            if sum(counts.values()) % 20 == 0:
                said = ", ".join(f"{name} {n}" for name, n in sorted(counts.items()))
                print(f"{time.monotonic() - started:.0f} s: {said}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.teach", description=str(__doc__).partition("\n")[0]
    )
    parser.add_argument(
        "kind", nargs="*", help=f"kinds to make, of {', '.join(KINDS)} (default: all)"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the data files")
    parser.add_argument("--potentials", type=Path, help="folder of the potentials' weights")
    parser.add_argument("--out", type=Path, required=True, help="folder of finished pairs")
    parser.add_argument("--count", type=int, help="inputs of each kind (default: the goals)")
    parser.add_argument("--shard", default="0/1", help="this process's share, as 0/4")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=100, help="atoms relaxed side by side")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--merge", type=Path, help="write parquet files of all pairs to a folder")
    return parser


def _share(text: str) -> tuple[int, int]:
    """Number of a share, from 0, and how many there are."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        msg = f"--shard is {text}: it has to be such as 0/4, the first of four"
        raise ValueError(msg)
    return int(number), int(count)


def schedule(kinds: Sequence[str], count: int | None) -> list[tuple[str, int]]:
    """Kinds and indices in the order of making, so that all kinds grow together."""
    places = [
        ((index + 0.5) / KINDS[kind].rate, kind, index)
        for kind in kinds
        for index in range(count or KINDS[kind].goal * 2)
    ]
    return [(kind, index) for _, kind, index in sorted(places)]


if __name__ == "__main__":
    main()
