"""`screen`: an input relaxed into an output, from where an earlier attempt was cut off."""

import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from deeprelax_ase.files.surroundings import ReadOptions
from deeprelax_ase.network.weights_registry import (
    SPECIALIST,
    has_specialist,
    replicate_paths,
    weights_sha256,
)
from deeprelax_ase.relaxation.options import RelaxOptions
from deeprelax_ase.screening.chunk import CHUNK_SIZE, Chunk, chunks, identity
from deeprelax_ase.screening.inputs import ScreenInput
from deeprelax_ase.screening.output_formats import (
    check_output,
    is_of_run,
    run_of,
    write_output,
)
from deeprelax_ase.screening.process_pool import Pool
from deeprelax_ase.screening.rank_and_deduplicate import Summary, Tally, overview
from deeprelax_ase.screening.work_folder import Run, WorkFolder, difference, work_path

_FORMAT = 2
"""Of rows and chunks; work of another format cannot be gone on with."""


class Screening:
    """One run of a screening.

    Args:
        inputs: Files, folders and patterns.
        output: File to write; its ending says the format.
        options: Of the relaxers.
        shard: Which share of the input, from 1 on.
        shards: Number of shares.
        max_error: Å; split the results into trusted ones and others.
        deduplicate: Group structures that relaxed to the same.
        overwrite: Replace an output, or the work, of another run.
        leave_out: Further outputs, which are none of the input although they may lie in it.
        how: How the inputs are read.

    Raises:
        ValueError: There is no such input, or nothing in it; a shard out of range; an output of
            another run.
    """

    def __init__(
        self,
        inputs: Sequence[str],
        output: Path,
        options: RelaxOptions,
        *,
        shard: int = 1,
        shards: int = 1,
        max_error: float | None = None,
        deduplicate: bool = False,
        overwrite: bool = False,
        leave_out: Collection[Path] = (),
        how: ReadOptions | None = None,
    ) -> None:
        if not 1 <= shard <= shards:
            msg = f"there is no shard {shard}/{shards}: choose 1/{shards} to {shards}/{shards}"
            raise ValueError(msg)
        check_output(output)
        self.output = output
        outputs = [output, work_path(output), *leave_out]
        self._input = ScreenInput(inputs, outputs, how)
        self._names = ", ".join(inputs)
        self._share = (shard, shards)
        self._max_error = max_error
        self._deduplicate = deduplicate
        self._overwrite = overwrite
        survey = self._survey = self._input.survey()
        self.count = len(range(shard - 1, survey.count, shards))
        self.run: Run = {
            "format": _FORMAT,
            "chunk_size": CHUNK_SIZE,
            "input_sha256": survey.digest,
            "entries": survey.count,
            "shard": shard,
            "shards": shards,
            "options": identity(options),
            "weights_sha256": _hashes(options),
        }
        self._finished_run: Run = {
            **self.run,
            "max_error": max_error,
            "deduplicate": deduplicate,
        }
        self.is_finished = self._look_at_output()

    def _look_at_output(self) -> bool:
        """Whether the output is there already, of this very run."""
        if not self.output.exists() or self._overwrite:
            return False
        is_done = is_of_run(self.output, self._finished_run)
        if work_path(self.output).exists():
            with WorkFolder(self.output, self.run) as work:
                # Killed after the output was there: only the work was still to be thrown away.
                if is_done or work.is_finished(self.output):
                    work.remove()
                    return True
        if is_done:
            return True
        found = run_of(self.output)
        why = f", of another run ({difference(found, self._finished_run)})" if found else ""
        msg = f"{self.output} exists{why}: pass --overwrite to replace it, or name another output"
        raise ValueError(msg)

    def relax(self, pool: Callable[[], AbstractContextManager[Pool]]) -> Summary:
        """Relax what is not done yet, and write the output.

        Args:
            pool: Makes what relaxes chunks; not called if all of them are done.

        Raises:
            ValueError: Another process is at it, or another run left its work there.
            OSError: The work or the output cannot be written; what is done is kept.
        """
        with WorkFolder(self.output, self.run, overwrite=self._overwrite) as work:
            self._relax_missing(work, pool)
            whole = overview(list(work.parts()), self._max_error, deduplicate=self._deduplicate)
            if whole.entries != self.count:
                raise ValueError(self._changed())
            if self._input.survey() != self._survey:
                text = f"{self._names} changed while it was read: rows are of either state"
                warnings.warn(text, stacklevel=2)
            tally = Tally()
            tables = tally.watch(whole.tables())
            write_output(self.output, tables, self._finished_run, work.about_to_finish)
            work.remove()
        return tally.summary()

    def _changed(self) -> str:
        return (
            f"{self._names} changed while it was read: pass --overwrite to begin anew, or name "
            "another output"
        )

    def _relax_missing(
        self, work: WorkFolder, pool: Callable[[], AbstractContextManager[Pool]]
    ) -> None:
        total = -(-self.count // CHUNK_SIZE)
        missing = {number for number in range(total) if not work.has(number)}
        if not missing:
            return
        done = self.count - sum(self._size(number) for number in missing)
        progress = tqdm(total=self.count, initial=done, unit="structure", smoothing=0.05)
        with progress, pool() as workers:
            for number, table in workers.relax(self._chunks(frozenset(missing))):
                work.add(number, table)
                progress.update(self._size(number))
                missing.discard(number)
        if missing:
            raise ValueError(self._changed())

    def _size(self, number: int) -> int:
        """Entries of a chunk."""
        return min(CHUNK_SIZE, self.count - number * CHUNK_SIZE)

    def _chunks(self, missing: Collection[int]) -> Iterator[Chunk]:
        shard, shards = self._share
        return (c for c in chunks(self._input, shard, shards) if c.number in missing)


def _hashes(options: RelaxOptions) -> dict[str, Any]:
    """Of all weights that may be used."""
    names = [options.model, *([SPECIALIST] if has_specialist(options.model) else [])]
    return {
        Path(path).stem: weights_sha256(path)
        for name in names
        for path in replicate_paths(name)[: None if options.ensemble else 1]
    }
