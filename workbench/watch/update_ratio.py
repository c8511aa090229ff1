"""How far each step moves each tensor, against its size; and how weights and biases are spread."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from workbench.watch.facts import network_name
from workbench.watch.monitor import Monitor
from workbench.watch.recorder import steps_done
from workbench.watch.tables import histogram, log_histograms, sample, shows_histograms, tell_layers

SAMPLE = 4096
"""Values of each tensor that are copied and compared: enough for a ratio, and the same cost for any network."""
TINY_RATE = 1e-6
"""Below this rate a step may be lost in rounding, which says nothing of how the optimizer is wired."""
STATISTICS = ("mean", "std", "min", "max")


class UpdateRatio(Monitor):
    """Measures |step| / |weight| of every tensor over one step, from a sample of its values; 1e-3 is healthy.

    Logged: ``update/NETWORK``, the median over the weights of each network. At validations, of every tensor, its ratio
    and its mean, standard deviation and extremes, into measurements.csv, and as histograms to Weights & Biases and
    TensorBoard.

    Args:
        every_n_steps: Measure at every n-th step, and at each of the first ten; 0 switches it off.
    """

    def __init__(self, every_n_steps: int = 10) -> None:
        super().__init__("update_ratio", every_n_steps)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._names = {id(p): name for name, p in pl_module.named_parameters()}
        self._networks: dict[int, str] = {}
        self._copies: list[tuple[str, list[Parameter], list[Tensor], dict[str, Any]]] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Note the rate; on measured steps, copy what is about to be moved."""
        if self.recorder is None or not trainer.is_global_zero:
            return
        step, due = steps_done(trainer), self.due(trainer)
        if id(optimizer) not in self._networks:
            self._networks[id(optimizer)] = network_name(pl_module, optimizer)
        network = self._networks[id(optimizer)]
        for number, group in enumerate(optimizer.param_groups):
            moved = (p for p in group["params"] if p.grad is not None and p.is_floating_point())
            first = next(moved, None)
            if first is None:
                continue
            rate = group["lr"]
            if number == 0 and not isinstance(rate, Tensor):
                self.recorder.history.add(f"lr/{network}", step, float(rate))
            if due:
                parameters = [first, *moved]
                self._copies.append((network, parameters, [sample(p, SAMPLE).clone() for p in parameters], group))

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Compare with what it was, and fetch."""
        copies, self._copies = self._copies if self.recorder is not None else [], []
        medians: dict[str, list[Tensor]] = {}
        for network, parameters, before, group in copies:
            ratios = self._measure(parameters, before, group, network, steps_done(trainer))
            medians.setdefault(network, []).extend(r for r, p in zip(ratios, parameters, strict=True) if p.ndim > 1)
        for network, ratios in medians.items():
            if ratios:
                values = torch.stack(ratios).nanmedian()
                self.recorder.put([f"update/{network}"], values, steps_done(trainer), log=True)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def _measure(
        self, parameters: list[Parameter], before: list[Tensor], group: dict[str, Any], network: str, step: int
    ) -> Tensor:
        names = [self._names.get(id(p), "?") for p in parameters]
        moves = torch._foreach_sub([sample(p, SAMPLE) for p in parameters], before)
        lengths = torch.stack(torch._foreach_norm(moves)).float()
        sizes = torch.stack(torch._foreach_norm(before)).float()
        # Of a tensor that was all 0, as a zero-initialized tail is at first, there is no ratio.
        ratios = torch.where(sizes > 0, lengths / sizes, torch.nan)
        self.recorder.put(names, ratios, step, table="update")
        counts = torch.tensor([b.numel() for b in before], device=sizes.device)
        self.recorder.put(names, torch.stack(torch._foreach_norm(before, 1)).float() / counts, step, table="scale")
        rate, decay = group["lr"], group.get("weight_decay", 0)
        if not isinstance(rate, Tensor) and rate >= TINY_RATE:
            moved = torch.stack(torch._foreach_norm(moves, float("inf"))) > 0
            self.recorder.put(names, moved, step, table="moved")
        if decay and not isinstance(rate, Tensor) and not isinstance(decay, Tensor):
            self._measure_decay(parameters, before, lengths, network, float(rate), float(decay), step)
        return ratios

    def _measure_decay(
        self,
        parameters: list[Parameter],
        before: list[Tensor],
        lengths: Tensor,
        network: str,
        rate: float,
        decay: float,
        step: int,
    ) -> None:
        """The pull of weight decay against what the data asks for, over all tensors of a group."""
        pull = decay * torch.linalg.vector_norm(torch.stack(torch._foreach_norm(before)).float())
        if network in self.recorder.history.facts.decoupled:
            # Data and decay pull in unrelated directions: the squares of their lengths add up.
            whole = torch.linalg.vector_norm(lengths)
            data = (whole.square() - (rate * pull).square()).clamp_min(1e-30).sqrt() / rate
        else:
            gradients = [sample(p.grad, SAMPLE) for p in parameters if p.grad is not None]
            if len(gradients) < len(parameters):
                return
            data = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)).float())
        self.recorder.put([f"decay/{network}"], pull / data.clamp_min(1e-30), step)

    @torch.no_grad()
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write how the tensors are spread."""
        if self.recorder is None or trainer.sanity_checking or not trainer.is_global_zero:
            return
        self.recorder.flush(trainer)
        parameters = {n: p.detach() for n, p in pl_module.named_parameters() if p.requires_grad and p.numel()}
        if not parameters:
            return
        found = torch.stack([torch.stack(_statistics(p.float())) for p in parameters.values()]).T.tolist()
        values = {
            f"weight_{s}": dict(zip(parameters, row, strict=True)) for s, row in zip(STATISTICS, found, strict=True)
        }
        for table in ("gradient", "update"):
            values[table] = {name: series.last for name, series in self.recorder.history.table(table).items()}
        tell_layers(trainer, self.recorder, values, charts=("gradient", "update"))
        if shows_histograms(trainer):
            log_histograms(trainer, {f"weights/{name}": histogram(p) for name, p in parameters.items()})


def _statistics(values: Tensor) -> list[Tensor]:
    return [values.mean(), values.std(correction=0), values.min(), values.max()]
