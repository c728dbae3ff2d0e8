"""Make pairs of kinds that no public data holds: build inputs, relax them with potentials.

    python -m recipes.teach --data DATA --potentials POTENTIALS --out FOLDER
    python -m recipes.teach --data DATA --out FOLDER --merge recipes/data

The first may be stopped and started again at any time, and run once a core (`--shard 0/4` ...):
what is finished is in the folder, one line a pair, and nothing is made twice.
"""

import argparse
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from recipes.teaching.hosts import load_held_back, load_hosts
from recipes.teaching.kinds import KINDS, teach_one
from recipes.teaching.potentials import load_potentials
from recipes.teaching.relaxing import Job, run_jobs
from recipes.teaching.store import merge, read_done, to_line


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    options = _parser().parse_args(arguments)
    kinds = options.kind or list(KINDS)
    if options.merge:
        held_back = load_held_back(options.data) if options.data else frozenset()
        for name, count in sorted(merge(options.out, options.merge, held_back).items()):
            print(f"{count:6d} {name}")
        return
    if not (options.data and options.potentials):
        msg = "--data and --potentials are needed to make pairs"
        raise SystemExit(msg)
    import torch

    if options.device == "cpu":
        torch.set_num_threads(1)
    started = time.monotonic()
    hosts = load_hosts(options.data)
    print(f"{len(hosts.bulk)} crystals, {len(hosts.sheets)} sheets to start from", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    share, shares = (int(part) for part in options.shard.split("/"))
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
        "kind", nargs="*", choices=[[], *KINDS], help="kinds to make (default: all)"
    )
    parser.add_argument("--data", type=Path, help="folder of the data files")
    parser.add_argument("--potentials", type=Path, help="folder of the potentials' weights")
    parser.add_argument("--out", type=Path, required=True, help="folder of finished pairs")
    parser.add_argument("--count", type=int, help="inputs of each kind (default: the goals)")
    parser.add_argument("--shard", default="0/1", help="this process's share, as 0/4")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=100, help="atoms relaxed side by side")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--merge", type=Path, help="write parquet files of all pairs to a folder")
    return parser


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
