"""What goes into the non-linearities, what comes out, and how far off the answers are."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from project.data.batch import Batch
from workbench.watch.looking import ProbeMonitor
from workbench.watch.probe import Probe
from workbench.watch.tables import Histogram, histogram, log_histograms, shows_histograms, tell_layers
from workbench.watch.taps import Seen

MEASURES = ("before_mean", "before_std", "after_mean", "after_std", "off_center", "offset")


class Activations(ProbeMonitor):
    """Measures the values before and after each non-linearity on the probe: mean, standard deviation, histogram, and
    how far the channels' means are off 0 against their spread. Where the model answers with images, it also measures
    their mean squared error, beside that of doing nothing and of the targets' mean.

    The mean and the standard deviation of each layer go to measurements.csv at validations, the histograms to Weights &
    Biases and TensorBoard. Logged: ``probe/error``, ``probe/nothing``, ``probe/mean``.

    Args:
        every_n_validations: Look at every n-th validation; 0 switches it off.
    """

    def __init__(self, every_n_validations: int = 1) -> None:
        super().__init__("activations", every_n_validations)
        self._draws = False
        self._found: dict[str, Tensor] = {}
        self._histograms: dict[str, Histogram] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._draws = shows_histograms(trainer)

    def hear(self, seen: Seen) -> None:
        """Measure on both sides."""
        if not torch.is_floating_point(seen.before):
            return
        before, after = seen.before.float(), seen.after.float()
        variance, mean = torch.var_mean(before, seen.others(), correction=0)
        far = _offsets(before, seen)
        after_variance, after_mean = torch.var_mean(after, correction=0)
        self._found[seen.name] = torch.stack(
            [
                mean.mean(),
                # The spread of all values: that within the channels, and that of their means.
                (variance.mean() + mean.var(correction=0)).sqrt(),
                after_mean,
                after_variance.sqrt(),
                (far > 1).float().mean(),
                far.median(),
            ]
        )
        if self._draws:
            self._histograms[f"before/{seen.name}"] = histogram(before)
            self._histograms[f"after/{seen.name}"] = histogram(after)

    def finish(self, trainer: Trainer, model: LightningModule, probe: Probe, output: Tensor) -> None:
        """Hand over what was measured."""
        found, self._found = self._found, {}
        if trainer.is_global_zero:
            if found:
                for position, table in enumerate(MEASURES):
                    column = torch.stack([values[position] for values in found.values()])
                    self.recorder.put(list(found), column, probe.step, table=table)
            self._judge(probe, output)

    def _judge(self, probe: Probe, output: Tensor) -> None:
        """The answers against the targets, in any space that both are in."""
        batch = probe.batch
        if not isinstance(batch, Batch) or not isinstance(output, Tensor) or output.shape != batch.target.shape:
            return
        target = batch.target.float()
        mean = target.mean(dim=(0, 2, 3), keepdim=True)
        for name, answer in (("error", output.float()), ("nothing", batch.baseline.float()), ("mean", mean)):
            self.recorder.put([f"probe/{name}"], (answer - target).square().mean(), probe.step, log=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look, write the figures, and draw the histograms."""
        super().on_validation_end(trainer, pl_module)
        histograms, self._histograms = self._histograms, {}
        if self.recorder is None or trainer.sanity_checking or not trainer.is_global_zero:
            return
        self.recorder.flush(trainer)
        tables = {table: self.recorder.history.table(table) for table in MEASURES}
        latest = {table: {name: series.last for name, series in rows.items()} for table, rows in tables.items()}
        tell_layers(trainer, self.recorder, latest)
        log_histograms(trainer, histograms)


def _offsets(before: Tensor, seen: Seen) -> Tensor:
    """|mean| / standard deviation of each channel, away from the borders: padding with 0 is a spread of its own.

    0 for a channel without any spread: what is constant is not off the middle, it does not see its input.
    """
    if before.ndim == 4 and seen.dim == 1 and min(before.shape[2:]) >= 8:
        height, width = before.shape[2:]
        before = before[..., height // 8 : height - height // 8, width // 8 : width - width // 8]
    variance, mean = torch.var_mean(before, seen.others(), correction=0)
    spread = variance.sqrt()
    return torch.where(spread > 1e-5 * mean.abs(), mean.abs() / spread, 0.0)
