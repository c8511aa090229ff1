"""How far each step moves each tensor, against its size; and how weights and biases are spread."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from workbench.watch.model_info import network_name
from workbench.watch.recorder import Recorder, for_histogram, sample

SAMPLE = 4096  # values of each tensor that are copied and compared: enough for a ratio, whatever the network's size
TINY_RATE = 1e-6  # below this rate a step may be lost in rounding, which says nothing about how the optimizer is wired


class Updates:
    """Measures |step| / |weight| of every tensor over one step, from a sample of its values; 1e-3 is healthy.

    Logged: ``update/NETWORK``, the median over the weights of each network.
    """

    def __init__(self, recorder: Recorder, model: LightningModule) -> None:
        self.recorder, self.model = recorder, model
        self._names = {id(p): name for name, p in model.named_parameters()}
        self._networks: dict[int, str] = {}
        self._copies: list[tuple[str, list[Parameter], list[Tensor], dict[str, Any]]] = []

    def before_step(self, optimizer: Optimizer, step: int, due: bool) -> None:
        """Record the rate; on measured steps, copy what is about to be moved."""
        if id(optimizer) not in self._networks:
            self._networks[id(optimizer)] = network_name(self.model, optimizer)
        network = self._networks[id(optimizer)]
        for number, group in enumerate(optimizer.param_groups):
            moved = (p for p in group["params"] if p.grad is not None and p.is_floating_point())
            first, rate = next(moved, None), group.get("lr")
            if first is None:
                continue
            if number == 0 and isinstance(rate, int | float):  # reading a tensor would wait for the device
                self.recorder.history.add(f"lr/{network}", step, float(rate))
            if due:
                parameters = [first, *moved]
                self._copies.append((network, parameters, [sample(p, SAMPLE).clone() for p in parameters], group))

    @torch.no_grad()
    def end_batch(self, step: int) -> None:
        """Compare with what it was."""
        copies, self._copies = self._copies, []
        medians: dict[str, list[Tensor]] = {}
        for network, parameters, before, group in copies:
            ratios = self._measure(parameters, before, group, network, step)
            medians.setdefault(network, []).extend(r for r, p in zip(ratios, parameters, strict=True) if p.ndim > 1)
        for network, ratios in medians.items():
            if ratios:
                self.recorder.put([f"update/{network}"], torch.stack(ratios).nanmedian(), step, log=True)

    def _measure(
        self, parameters: list[Parameter], before: list[Tensor], group: dict[str, Any], network: str, step: int
    ) -> Tensor:
        names = [self._names.get(id(p), "?") for p in parameters]
        moves = torch._foreach_sub([sample(p, SAMPLE) for p in parameters], before)
        lengths = torch.stack(torch._foreach_norm(moves)).float()
        sizes = torch.stack(torch._foreach_norm(before)).float()
        # A tensor that was all 0, as a zero-initialized tail is at first, has no ratio.
        ratios = torch.where(sizes > 0, lengths / sizes, torch.nan)
        self.recorder.put(names, ratios, step, table="update")
        counts = torch.tensor([b.numel() for b in before], device=sizes.device)
        self.recorder.put(names, torch.stack(torch._foreach_norm(before, 1)).float() / counts, step, table="scale")
        rate, decay = group.get("lr"), group.get("weight_decay", 0)
        if isinstance(rate, int | float) and rate >= TINY_RATE:
            moved = torch.stack(torch._foreach_norm(moves, float("inf"))) > 0
            self.recorder.put(names, moved, step, table="moved")
        if isinstance(rate, int | float) and isinstance(decay, int | float) and decay:
            pull = decay * torch.linalg.vector_norm(sizes)
            data = self._pull_of_data(parameters, lengths, pull, float(rate), network)
            if data is not None:
                self.recorder.put([f"decay/{network}"], pull / data.clamp_min(1e-30), step)
        return ratios

    def _pull_of_data(
        self, parameters: list[Parameter], lengths: Tensor, pull: Tensor, rate: float, network: str
    ) -> Tensor | None:
        """What the data asks for, over all tensors of a group, to compare with the pull of weight decay."""
        if network in self.recorder.history.model.decoupled:
            # Data and decay pull in unrelated directions: the squares of their lengths add up.
            whole = torch.linalg.vector_norm(lengths)
            return (whole.square() - (rate * pull).square()).clamp_min(1e-30).sqrt() / max(rate, 1e-30)
        gradients = [sample(p.grad, SAMPLE) for p in parameters if p.grad is not None]
        if len(gradients) < len(parameters):
            return None
        return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)).float())

    @torch.no_grad()
    def spread(self) -> dict[str, dict[str, float]]:
        """Mean, standard deviation, minimum and maximum of every trainable tensor; sends their histograms as well."""
        parameters = {n: p.detach() for n, p in self.model.named_parameters() if p.requires_grad and p.numel()}
        if not parameters:
            return {}
        values = [p.float() for p in parameters.values()]
        found = torch.stack([torch.stack([v.mean(), v.std(correction=0), v.min(), v.max()]) for v in values]).T.tolist()
        if self.recorder.shows_histograms:
            self.recorder.log_histograms({f"weights/{name}": for_histogram(p) for name, p in parameters.items()})
        names = ("weight_mean", "weight_std", "weight_min", "weight_max")
        return {name: dict(zip(parameters, row, strict=True)) for name, row in zip(names, found, strict=True)}
