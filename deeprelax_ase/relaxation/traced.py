"""One small crystal through network and solve in one call of a TorchScript trace.

What a small crystal costs is not arithmetic: it is some seven hundred small operations, each
dispatched by Python. A trace dispatches them in half of the time, with the same results.
"""

import warnings
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from deeprelax_ase.network.config import NetworkConfig
from deeprelax_ase.network.graph import CrystalGraph
from deeprelax_ase.network.prediction import Prediction
from deeprelax_ase.solver.gauss_newton import one_step
from deeprelax_ase.solver.state import Solution, residuals_of

_MOST_PAIRS = 800
"""Beyond them the portions that a trace does without are worth more than the trace."""
_WORTH_IT = 20
"""A trace takes as long as some fifty crystals cost without it, so a few do without."""


class TracedMove:
    """The network and one step of the joint solve, for single crystals on a processor.

    Args:
        network: Takes a graph in single precision.
        config: Of the network; the trace is for those that were trained through one step.
    """

    def __init__(self, network: nn.Module, config: NetworkConfig) -> None:
        self._step = _Step(network)
        self._is_possible = config.solver_steps == 1 and not config.ucoe
        self._calls = 0
        self._trace: torch.jit.ScriptModule | None = None

    def __getstate__(self) -> dict[str, Any]:
        """All but the trace, which cannot be pickled and is taken anew where it is needed."""
        return {**self.__dict__, "_trace": None}

    def __call__(self, graph: CrystalGraph) -> tuple[Prediction, Solution] | None:
        """What the network says and where the solve ends, in double precision.

        Args:
            graph: In double precision.

        Returns:
            None for what is left to the general way: batches, large crystals, the first few, and
            whatever does not go smoothly.
        """
        if graph.num_crystals > 1 or not 0 < len(graph.edge_lengths) <= _MOST_PAIRS:
            return None
        self._calls += 1
        if not self._is_possible or self._calls <= _WORTH_IT:
            return None
        inputs = tuple(getattr(graph, field.name) for field in fields(graph))
        with torch.inference_mode():
            if self._trace is None:
                self._trace = _traced(self._step, inputs)
            outputs = self._trace(*inputs)
        *predicted, displacements, deformations, residuals, status, is_final = outputs
        if not bool(is_final):
            return None
        steps = torch.ones_like(graph.num_atoms)
        solution = Solution(displacements, deformations, residuals, steps, status)
        return Prediction(*predicted), solution


class _Step(nn.Module):
    """Tensors in, tensors out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *of_graph: Tensor) -> tuple[Tensor, ...]:
        graph = CrystalGraph(*of_graph)
        prediction = self.network(graph.to(torch.float32)).to(torch.float64)
        end, is_final = one_step(graph, prediction)
        residuals = residuals_of(graph, prediction, end.lengths)
        predicted = (getattr(prediction, field.name) for field in fields(prediction))
        return *predicted, *end.state, residuals, end.status, is_final


def _traced(step: nn.Module, inputs: tuple[Tensor, ...]) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        # That tracing is deprecated, and that the number of crystals is taken for a constant.
        warnings.simplefilter("ignore")
        trace = torch.jit.trace(step.eval(), inputs, check_trace=False)
        frozen: torch.jit.ScriptModule = torch.jit.freeze(trace)
        return frozen
