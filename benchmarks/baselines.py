"""PAINN and EGNN that predict coordinates and lattice directly, on the same data and budget.

    python -m benchmarks.baselines DATA RUNS [--seeds 0 1] [--networks painn egnn ...]

The counterparts of the paper's baselines: no distances, no uncertainties, no solve. Both see the
graphs, batches, optimizer and schedule of `benchmarks.ablation`, and are as wide and deep. An
atom's displacement is the network's vector; the nine components of the relaxed cell are those of
the given one plus the output of an MLP of the mean features and the given cell. The paper's own
network of `benchmarks.pairwise` is trained here too. Results are written to
RUNS/<network>-<seed>.json and not trained again.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from benchmarks.ablation import SETS, Variant, variant_config
from benchmarks.pairwise import PairwiseNetwork
from deeprelax_ase.datasets.pair_file import PairFile, Targets
from deeprelax_ase.network.config import FUNCTIONALS, NetworkConfig
from deeprelax_ase.network.graph import CrystalGraph
from deeprelax_ase.network.message_passing import Edges, Message, Update
from deeprelax_ase.network.radial_basis import RadialBasis
from deeprelax_ase.structures.crystal import MAX_ATOMIC_NUMBER
from deeprelax_ase.training.config import LossConfig, TrainConfig
from deeprelax_ase.training.mixture import Mixture, load_batches
from deeprelax_ase.training.schedule import Schedule
from deeprelax_ase.training.validation import score

_MEAN_NEIGHBORS = 22.0
_CELL_SCALE = 10.0


class _Baseline(nn.Module):
    """What both share: embeddings, and the head of the lattice."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        features = config.num_features
        self.elements = nn.Embedding(MAX_ATOMIC_NUMBER + 1, features)
        self.functionals = nn.Embedding(len(FUNCTIONALS), features)
        self.radial = RadialBasis(
            config.num_radial, 0, config.cutoff, config.envelope_exponent, MAX_ATOMIC_NUMBER + 1
        )
        self.lattice = nn.Sequential(
            nn.Linear(features + 9, features), nn.SiLU(), nn.Linear(features, 9)
        )

    def start(self, graph: CrystalGraph) -> tuple[Tensor, Edges]:
        """Scalars of the atoms, and the edges between them."""
        i, j = graph.edge_index
        codes = self.radial(graph.edge_lengths, graph.numbers[i], graph.numbers[j])
        directions = graph.edge_vectors / graph.edge_lengths[:, None]
        scalars = self.elements(graph.numbers) + self.functionals(graph.functionals)[graph.batch]
        envelope = self.radial.envelope(graph.edge_lengths)
        return scalars, Edges.of_pairs(graph.edge_index, directions, codes[None], envelope)

    def finish(self, graph: CrystalGraph, scalars: Tensor, moves: Tensor) -> tuple[Tensor, Tensor]:
        """Displacements of mean zero, and relaxed cells."""
        cells = graph.cells.flatten(1) / _CELL_SCALE
        change = self.lattice(torch.cat([graph.mean(scalars), cells], dim=1)).view(-1, 3, 3)
        return moves - graph.mean(moves)[graph.batch], graph.cells + change

    def loss(self, graph: CrystalGraph, targets: Targets, _config: LossConfig) -> Tensor:
        """Mean length of the error of displacements, and mean error of the cells' components."""
        moves, cells = self(graph)
        apart = moves - targets.displacements
        lengths = torch.sqrt((apart * apart).sum(dim=1) + 1e-10)
        true_cells = graph.cells @ targets.deformations
        return graph.mean(lengths).mean() + (cells - true_cells).abs().mean()

    def relax(self, graph: CrystalGraph) -> tuple[Tensor, Tensor]:
        """Displacements and deformations, in double precision."""
        moves, cells = self(graph.to(torch.float32))
        return moves.double(), torch.linalg.solve(graph.cells, cells.double())


class PAINN(_Baseline):
    """PaiNN (Schütt et al., ICML 2021) with one vector an atom as its output."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        features = config.num_features
        layers = range(config.num_layers)
        basis = self.radial.num_basis
        self.messages = nn.ModuleList(Message(features, basis, _MEAN_NEIGHBORS) for _ in layers)
        self.updates = nn.ModuleList(Update(features) for _ in layers)
        self.out = nn.Linear(features, 1, bias=False)

    def forward(self, graph: CrystalGraph) -> tuple[Tensor, Tensor]:
        """Displacements, Å, and relaxed cells, Å."""
        scalars, edges = self.start(graph)
        vectors = None
        for message, update in zip(self.messages, self.updates, strict=True):
            change, moved, _ = message(scalars, vectors, None, [edges])
            scalars = scalars + change
            vectors = moved if vectors is None else vectors + moved
            scalars, vectors = update(scalars, vectors)
        return self.finish(graph, scalars, self.out(vectors)[:, :, 0])


class EGNN(_Baseline):
    """EGNN (Satorras et al., ICML 2021): atoms move along their edges, layer by layer."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        features, basis = config.num_features, self.radial.num_basis
        layers = range(config.num_layers)
        self.senders = nn.ModuleList(
            nn.Sequential(
                nn.Linear(2 * features + basis, features), nn.SiLU(), nn.Linear(features, features)
            )
            for _ in layers
        )
        self.pulls = nn.ModuleList(
            nn.Sequential(nn.Linear(features, features), nn.SiLU(), nn.Linear(features, 1))
            for _ in layers
        )
        self.nodes = nn.ModuleList(
            nn.Sequential(
                nn.Linear(2 * features, features), nn.SiLU(), nn.Linear(features, features)
            )
            for _ in layers
        )

    def forward(self, graph: CrystalGraph) -> tuple[Tensor, Tensor]:
        """Displacements, Å, and relaxed cells, Å."""
        scalars, edges = self.start(graph)
        i, j = graph.edge_index
        moves = torch.zeros_like(graph.positions)
        envelope = edges.envelope.repeat(2)[:, None]
        for sender, pull, node in zip(self.senders, self.pulls, self.nodes, strict=True):
            vectors = graph.edge_vectors + moves[j] - moves[i]
            lengths = torch.sqrt((vectors * vectors).sum(dim=1) + 1e-8)
            codes = self.radial(lengths, graph.numbers[i], graph.numbers[j])
            ends = [scalars[edges.targets], scalars[edges.sources], codes.repeat(2, 1)]
            messages = sender(torch.cat(ends, dim=1)) * envelope
            directions = torch.cat([vectors, -vectors]) / lengths.repeat(2)[:, None]
            steps = directions * pull(messages) * envelope / _MEAN_NEIGHBORS
            moves = moves.index_add(0, edges.targets, steps)
            received = torch.zeros_like(scalars).index_add(0, edges.targets, messages)
            received = received / _MEAN_NEIGHBORS**0.5
            scalars = scalars + node(torch.cat([scalars, received], dim=1))
        return self.finish(graph, scalars, moves)


_Network = _Baseline | PairwiseNetwork
NETWORKS: dict[str, type[_Network]] = {
    "painn": PAINN,
    "egnn": EGNN,
    "pairwise": PairwiseNetwork,
}


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    arguments = parser.parse_args()
    arguments.runs.mkdir(parents=True, exist_ok=True)
    for name in arguments.networks:
        for seed in arguments.seeds:
            path = arguments.runs / f"{name}-{seed}.json"
            if not path.exists():
                config = variant_config(Variant(), seed, arguments.data)
                path.write_text(json.dumps(train(NETWORKS[name], config), indent=1) + "\n")
            print(name, seed, path.read_text())


def train(kind: type[_Network], config: TrainConfig) -> dict[str, dict[str, float]]:
    """Train a baseline; its improvements over the input on the validation sets."""
    torch.set_num_threads(1)
    torch.manual_seed(config.seed)
    network = kind(config.network)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay))
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    if config.compile:
        network.compile(dynamic=True)
    schedule = Schedule(config, optimizer)
    mixture = Mixture(config, "train")
    started = time.monotonic()
    batches = load_batches(mixture, (0, 0), config)
    for step, batch in zip(tqdm(range(config.steps), mininterval=30), batches, strict=False):
        graph, targets = batch.graph.to(torch.float32), batch.targets.to(torch.float32)
        schedule.apply(step)
        optimizer.zero_grad(set_to_none=True)
        network.loss(graph, targets, config.loss).backward()
        nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
        optimizer.step()
        average.update_parameters(network)
    minutes = (time.monotonic() - started) / 60
    trained = average.module.eval()
    assert isinstance(trained, _Network)
    files = {s.path.stem: PairFile(s.path, "val") for s in config.sources if s.path.stem in SETS}
    scores = {
        name: score(trained.relax, config.network, files[name], config.validation_limit)
        for name in SETS
    }
    parameters = float(sum(p.numel() for p in network.parameters()))
    return {"run": {"minutes": round(minutes, 1), "parameters": parameters}, **scores}


if __name__ == "__main__":
    main()
