"""Units that no image can wake, and units at the ends of their range."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from workbench.watch.looking import ProbeMonitor, cut, reduce
from workbench.watch.probe import Probe
from workbench.watch.tables import tell_layers
from workbench.watch.taps import Seen

CAN_DIE = {"relu": 0.0, "relu6": 0.0, "clamp_min": 0.0, "hardswish": 0.0, "gelu": 1e-6, "silu": 1e-6, "mish": 1e-6}
"""Non-linearities that give nothing, and no gradient, below some input; and up to which output that is so."""
ENDS = {"tanh": (-0.99, 0.99), "hardtanh": (-1.0, 1.0), "sigmoid": (0.01, 0.99), "hardsigmoid": (0.0, 1.0)}
"""Where the ends of a bounded non-linearity begin: there its slope is below a fiftieth of that in the middle."""
AT_ITS_END = 0.7
"""Share of a channel's values at an end from which it counts as saturated."""


class DeadUnits(ProbeMonitor):
    """Counts, behind each ReLU, the channels that are zero for every image of the probe: a fixed set of validation
    images, and in a distributed run those of all processes. A healthy ReLU is zero half of the time, but in no
    channel always. Leaky non-linearities cannot die. Behind a tanh or a sigmoid it counts the channels that are at an
    end of its range nearly everywhere.

    Logged at validations: ``dead_units/worst`` and ``saturated_units/worst``, the largest share of any layer. The share
    of each layer goes to measurements.csv, and as a chart to Weights & Biases and TensorBoard.

    Args:
        every_n_validations: Look at every n-th validation; 0 switches it off.
    """

    def __init__(self, every_n_validations: int = 1) -> None:
        super().__init__("dead_units", every_n_validations)
        self._largest: dict[str, tuple[Tensor, float]] = {}
        self._at_end: dict[str, Tensor] = {}

    def hear(self, seen: Seen) -> None:
        """Take what each channel gives at most, or how often it is at an end."""
        if seen.kind in CAN_DIE:
            largest = seen.after.detach().abs().amax(seen.others())
            self._largest[seen.name] = largest.float(), CAN_DIE[seen.kind]
        elif seen.kind in ENDS:
            low, high = ENDS[seen.kind]
            at_end = (seen.after <= low) | (seen.after >= high)
            self._at_end[seen.name] = at_end.float().mean(seen.others())

    def finish(self, trainer: Trainer, model: LightningModule, probe: Probe, output: Tensor) -> None:
        """Count over all processes."""
        self._count(trainer, probe, "dead", *self._dead(trainer))
        self._count(trainer, probe, "saturated", *self._saturated(trainer))
        self._largest, self._at_end = {}, {}

    def _dead(self, trainer: Trainer) -> tuple[list[str], list[Tensor]]:
        names = list(self._largest)
        if not names:
            return [], []
        vectors = [self._largest[name][0] for name in names]
        largest = cut(reduce(trainer, torch.cat(vectors), "max"), [len(v) for v in vectors])
        return names, [(v <= self._largest[n][1]).float().mean() for n, v in zip(names, largest, strict=True)]

    def _saturated(self, trainer: Trainer) -> tuple[list[str], list[Tensor]]:
        names = list(self._at_end)
        if not names:
            return [], []
        vectors = list(self._at_end.values())
        shares = cut(reduce(trainer, torch.cat(vectors), "mean"), [len(v) for v in vectors])
        return names, [(share > AT_ITS_END).float().mean() for share in shares]

    def _count(self, trainer: Trainer, probe: Probe, table: str, names: list[str], shares: list[Tensor]) -> None:
        if names and trainer.is_global_zero:
            found = torch.stack(shares)
            self.recorder.put(names, found, probe.step, table=table)
            self.recorder.put([f"{table}_units/worst"], found.max(), probe.step, log=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look, and list the layers, worst first."""
        super().on_validation_end(trainer, pl_module)
        if self.recorder is None or trainer.sanity_checking or not trainer.is_global_zero:
            return
        self.recorder.flush(trainer)
        values = {}
        for table in ("dead", "saturated"):
            layers = {name: series.last for name, series in self.recorder.history.table(table).items()}
            values[table] = dict(sorted(layers.items(), key=lambda entry: -entry[1]))
        tell_layers(trainer, self.recorder, values, charts=("dead", "saturated"))
