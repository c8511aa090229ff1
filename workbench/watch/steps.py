"""How large the gradients of a step are, whether they belong to it alone, and how far it moves each tensor."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from workbench.watch.model_info import network_name
from workbench.watch.recorder import Recorder, for_histogram, sample

SAMPLE = 4096  # values of each tensor that are copied and compared: enough for a ratio, whatever the network's size
TINY_RATE = 1e-6  # below this rate a step may be lost in rounding, which says nothing about how the optimizer is wired


class StepMonitor:
    """Measures every tensor's gradient right before the optimizer uses it (unscaled, accumulated, averaged over
    processes, and not yet clipped), and |step| / |weight| over one step, from a sample of its values; 1e-3 is healthy.

    Logged for each network: ``lr/NETWORK``, of further groups ``lr/NETWORK_1`` and so on; ``gradient/NETWORK``, the
    norm; ``grad/NETWORK_first_to_last``, the first weight's over the last one's; ``update/NETWORK``, a median. For the
    rules also: missing, left-over and leaking gradients, and how hard weight decay pulls.
    """

    def __init__(
        self, recorder: Recorder, trainer: Trainer, model: LightningModule, state: dict[str, Any] | None = None
    ) -> None:
        self.recorder, self.trainer, self.model = recorder, trainer, model
        self._discriminators = recorder.history.model.discriminators
        self._known: dict[int, tuple[int, str, dict[str, Parameter]]] = {}
        # By an optimizer's number: the gradients that were left, before each backward pass since its last step.
        left = (state or {}).get("left", {}).items()
        self._left = {int(n): [torch.tensor(norm or 0.0, device=model.device) for norm in seen] for n, seen in left}
        self._copies: list[tuple[str, dict[str, Parameter], list[Tensor], dict[str, Any]]] = []
        self._reset_passes()

    def _reset_passes(self) -> None:
        self._before: dict[int, Tensor] = {}
        self._changed: dict[int, Tensor] = {}  # by the passes since the last step, by optimizer
        self._suspects: dict[int, Tensor] = {}  # by the discriminator's passes, until the next one
        self._leaks: dict[int, Tensor] = {}

    def before_backward(self, due: bool) -> None:
        for number, seen in self._left.items():
            seen.append(self._norm(number))
        if self._discriminators and due:
            self._leaks |= self._suspects
            self._suspects = {}
            self._before = {number: self._norm(number) for number in range(len(self.trainer.optimizers))}

    def after_backward(self) -> None:
        for number, before in self._before.items():
            self._changed[number] = self._changed.get(number, 0.0) + (self._norm(number) - before).abs()
        self._before = {}

    def before_step(self, optimizer: Optimizer, step: int, due: bool) -> None:
        number = next(n for n, other in enumerate(self.trainer.optimizers) if other is optimizer)
        network, parameters = self._of(number)
        if seen := self._left.pop(number, None):  # between two steps gradients have to be found cleared, at least once
            self.recorder.put([network], torch.stack(seen).min(), step, table="carried")
        for position, group in enumerate(optimizer.param_groups):
            rate, used = group.get("lr"), any(p.grad is not None for p in group["params"])
            if used and isinstance(rate, int | float):  # reading a tensor would wait for the device
                self.recorder.add(f"lr/{network}_{position}" if position else f"lr/{network}", float(rate), step)
        if not due:
            return
        present = {name: p for name, p in parameters.items() if p.grad is not None}
        for name in [name for name in parameters if name not in present]:
            self.recorder.history.add(name, step, 1.0, table="missing")
        if present:
            self._left[number] = []
            self._measure_gradients(network, present, step)
        for group in optimizer.param_groups:
            held = {id(p) for p in group["params"]}
            moved = {name: p for name, p in present.items() if id(p) in held and p.is_floating_point()}
            if moved:
                self._copies.append((network, moved, [sample(p, SAMPLE).clone() for p in moved.values()], group))

    def _measure_gradients(self, network: str, present: dict[str, Parameter], step: int) -> None:
        if self._discriminators:
            self._judge_passes(network)
        norms = torch.stack(torch._foreach_norm([p.grad for p in present.values()])).float()
        self.recorder.put(list(present), norms, step, table="gradient")
        self.recorder.put([f"gradient/{network}"], torch.linalg.vector_norm(norms), step, log=True)
        weights = [position for position, p in enumerate(present.values()) if p.ndim > 1]
        if len(weights) > 1:
            ratio = norms[weights[0]] / norms[weights[-1]]
            self.recorder.put([f"grad/{network}_first_to_last"], ratio, step, log=True)

    def _judge_passes(self, network: str) -> None:
        """What the passes before this step did to other networks counts against the discriminator's."""
        if network in self._discriminators:
            others = [n for n in self._changed if self._of(n)[0] not in self._discriminators]
            self._suspects |= {number: self._changed[number] for number in others}
        else:
            self._suspects = {}  # no pass since the discriminator's: it was one for both
        self._changed = {}

    @torch.no_grad()
    def end_batch(self, step: int, due: bool) -> None:
        """Settle what leaked in this batch, and compare with what was before the step."""
        if self._discriminators and due:
            for number, value in sorted({**self._leaks, **self._suspects}.items()):
                self.recorder.put([self._of(number)[0]], value, step, table="leaked")
        self._reset_passes()
        copies, self._copies = self._copies, []
        medians: dict[str, list[Tensor]] = {}
        for network, moved, before, group in copies:
            ratios = self._measure_updates(network, moved, before, group, step)
            medians.setdefault(network, []).extend(r for r, b in zip(ratios, moved.values(), strict=True) if b.ndim > 1)
        for network, ratios in medians.items():
            if ratios:
                self.recorder.put([f"update/{network}"], torch.stack(ratios).nanmedian(), step, log=True)

    def _measure_updates(
        self, network: str, moved: dict[str, Parameter], before: list[Tensor], group: dict[str, Any], step: int
    ) -> Tensor:
        names = list(moved)
        moves = torch._foreach_sub([sample(p, SAMPLE) for p in moved.values()], before)
        lengths = torch.stack(torch._foreach_norm(moves)).float()
        sizes = torch.stack(torch._foreach_norm(before)).float()
        # A tensor that was all 0, as a zero-initialized tail is at first, has no ratio.
        ratios = torch.where(sizes > 0, lengths / sizes, torch.nan)
        self.recorder.put(names, ratios, step, table="update")
        counts = torch.tensor([b.numel() for b in before], device=sizes.device)
        self.recorder.put(names, torch.stack(torch._foreach_norm(before, 1)).float() / counts, step, table="scale")
        rate, decay = group.get("lr"), group.get("weight_decay", 0)
        if isinstance(rate, int | float) and rate >= TINY_RATE:
            changed = torch.stack(torch._foreach_norm(moves, float("inf"))) > 0
            self.recorder.put(names, changed, step, table="moved")
        if isinstance(rate, int | float) and isinstance(decay, int | float) and decay:
            pull = decay * torch.linalg.vector_norm(sizes)
            gradients = [sample(p.grad, SAMPLE) for p in moved.values() if p.grad is not None]
            if network in self.recorder.history.model.decoupled:
                # Data and decay pull in unrelated directions: the squares of their lengths add up.
                data = (lengths.square().sum() - (rate * pull).square()).clamp_min(1e-30).sqrt() / max(rate, 1e-30)
            elif len(gradients) == len(moved):
                data = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)).float())
            else:  # the model has cleared them by now
                return ratios
            self.recorder.put([f"decay/{network}"], pull / data.clamp_min(1e-30), step)
        return ratios

    @torch.no_grad()
    def spread(self) -> dict[str, dict[str, float]]:
        """Mean, standard deviation, minimum and maximum of every trainable tensor; keeps their histograms as well."""
        parameters = {n: p.detach() for n, p in self.model.named_parameters() if p.requires_grad and p.numel()}
        if not parameters:
            return {}
        values = [p.float() for p in parameters.values()]
        found = torch.stack([torch.stack([v.mean(), v.std(correction=0), v.min(), v.max()]) for v in values]).T.tolist()
        if self.recorder.shows_histograms:
            self.recorder.histograms |= {f"weights/{name}": for_histogram(p) for name, p in parameters.items()}
        names = ("weight_mean", "weight_std", "weight_min", "weight_max")
        return {name: dict(zip(parameters, row, strict=True)) for name, row in zip(names, found, strict=True)}

    def state_dict(self) -> dict[str, Any]:
        return {"left": {n: [float(norm) for norm in seen] for n, seen in self._left.items()}}

    def _norm(self, number: int) -> Tensor:
        """Of the gradients of an optimizer; 0 without any."""
        gradients = [p.grad for p in self._of(number)[1].values() if p.grad is not None]
        if not gradients:
            return torch.zeros((), device=self.model.device)
        return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)).float())

    def _of(self, number: int) -> tuple[str, dict[str, Parameter]]:
        """The network that an optimizer trains, and the parameters that it holds, in the order of the network."""
        optimizer = self.trainer.optimizers[number]
        held = {id(p) for group in optimizer.param_groups for p in group["params"] if p.requires_grad}
        if number not in self._known or self._known[number][0] != len(held):  # the first step, or layers were unfrozen
            parameters = {name: p for name, p in self.model.named_parameters() if id(p) in held}
            self._known[number] = len(held), network_name(self.model, optimizer), parameters
        return self._known[number][1:]
