"""The kinds of inputs, how many of each are wanted, and the job that makes one pair."""

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from recipes.teaching.bulk import build_decoration, build_defect, build_ions, build_oxide
from recipes.teaching.chemistry import UnusableError
from recipes.teaching.hosts import Hosts
from recipes.teaching.inputs import Builder
from recipes.teaching.pairs import make_row
from recipes.teaching.random_crystals import build_random
from recipes.teaching.relaxing import Job, Request
from recipes.teaching.sheets import build_layered, build_monolayer, build_sheet
from recipes.teaching.surfaces import build_adsorbate, build_slab

MOST_STEPS = 150


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        build: Makes one.
        goal: Pairs wanted in all.
        rate: Inputs made of it for each one of `oxides`, as long as all kinds grow.
    """

    build: Builder
    goal: int
    rate: float


KINDS = {
    "slabs": Kind(build_slab, 2000, 7),
    "defects": Kind(build_defect, 2000, 6),
    "sheets": Kind(build_sheet, 1500, 7),
    "monolayers": Kind(build_monolayer, 3000, 10),
    "adsorbates": Kind(build_adsorbate, 1500, 5),
    "ions": Kind(build_ions, 2000, 5),
    "layered": Kind(build_layered, 700, 4),
    "decorations": Kind(build_decoration, 1000, 2),
    "random": Kind(build_random, 1000, 2),
    "oxides": Kind(build_oxide, 300, 1),
}


def teach_one(kind: str, index: int, hosts: Hosts, seed: int) -> Job:
    """Build an input, have it relaxed, and return its row or the reason why there is none.

    The input depends on seed, kind and index alone (and on what the potential makes of its host).
    """
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode()), index])
    try:
        made = yield from KINDS[kind].build(hosts, rng)
        if hosts.is_held_back(made.atoms.numbers):
            return {"reason": "its formula is held back for validation or test"}
        relaxed = yield Request(
            made.atoms, made.cell, made.potential, steps=MOST_STEPS, fmax=made.fmax
        )
        if relaxed.trouble:
            return _dropped(relaxed.trouble, made.variant, relaxed.steps)
        try:
            return make_row(made, relaxed.atoms, kind, index, relaxed.steps)
        except UnusableError as error:
            return _dropped(str(error), made.variant, relaxed.steps)
    except UnusableError as error:
        return {"reason": str(error)}
    except Exception as error:  # noqa: BLE001 - one input must not end a run of days
        return {"reason": f"error: {type(error).__name__}: {error}"}


def _dropped(reason: str, variant: str, steps: int) -> dict[str, Any]:
    return {"reason": reason, "variant": variant, "steps": steps}
