"""How large the gradient is that reaches each layer, and whether it belongs to this step alone."""

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


class GradientFlow(Monitor):
    """Measures the norm of every tensor's gradient right before the optimizer uses it: unscaled, accumulated, averaged
    over processes, and not yet clipped where this callback comes before the one that clips.

    Logged for each network: ``grad/NETWORK_first_to_last``, the ratio of the first weight's norm to the last one's, in
    the order in which the network uses its layers; the norms themselves are logged by ``gradient_clipping``, and those
    of every layer written into measurements.csv at validations, and charted. Rules also get to know which tensors have
    none, where a gradient that is no number came first, and whether gradients are cleared between steps and stay within
    their network.

    Args:
        every_n_steps: Measure at every n-th step, and at each of the first ten; 0 switches it off.
    """

    def __init__(self, every_n_steps: int = 10) -> None:
        super().__init__("gradient_flow", every_n_steps)
        self._watched: dict[int, list[Tensor | None]] = {}  # by the optimizer's number
        self._loaded: dict[int, list[Tensor | None]] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._model = pl_module
        self._named: dict[int, tuple[int, str, list[str], list[Parameter]]] = {}
        self._numbers = {id(optimizer): number for number, optimizer in enumerate(trainer.optimizers)}
        self._watched, self._loaded = self._loaded, {}
        self._before: dict[int, Tensor | None] = {}
        self._forget_passes()

    def _forget_passes(self) -> None:
        self._reached: dict[int, Tensor | float] = {}  # by the passes since the last step, by optimizer
        self._suspects: dict[int, Tensor | float] = {}  # by the discriminator's passes, until the next one
        self._leaks: dict[int, Tensor | float] = {}

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Look what is left of the gradients of the step before."""
        if self.recorder is None:
            return
        for number, seen in self._watched.items():
            seen.append(self._norm(trainer.optimizers[number]))
        if self._is_game and self.due(trainer):
            self._leaks |= self._suspects
            self._suspects = {}
            self._before = {id(optimizer): self._norm(optimizer) for optimizer in trainer.optimizers}

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look whose gradients this backward pass has changed."""
        if self.recorder is None or not self._before:
            return
        for optimizer in trainer.optimizers:
            before, after = self._before[id(optimizer)], self._norm(optimizer)
            if after is None:
                change: Tensor | float = 0.0
            else:
                change = after if before is None else (after - before).abs()
            self._reached[id(optimizer)] = self._reached.get(id(optimizer), 0.0) + change
        self._before = {}

    @property
    def _is_game(self) -> bool:
        return self.recorder is not None and self.recorder.history.facts.adversarial

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Measure the gradients that are about to be used."""
        if self.recorder is None or not trainer.is_global_zero:
            return
        step, (_, network, names, parameters) = steps_done(trainer), self._of(optimizer)
        self._finish_watch(self._numbers[id(optimizer)], network, step)
        if not self.due(trainer):
            return
        if not (parameters and any(p.grad is not None for p in parameters)):
            for name in names:
                self.recorder.history.add_row("missing", name, step, 1.0)
            return
        self._watched[self._numbers[id(optimizer)]] = []
        if self._is_game:
            self._judge_leaks(trainer, network)
        self._measure(optimizer, network, names, parameters, step)

    def _measure(
        self, optimizer: Optimizer, network: str, names: list[str], parameters: list[Parameter], step: int
    ) -> None:
        present = [(name, p) for name, p in zip(names, parameters, strict=True) if p.grad is not None]
        for name, parameter in zip(names, parameters, strict=True):
            if parameter.grad is None:
                self.recorder.history.add_row("missing", name, step, 1.0)
        norms = torch.stack(torch._foreach_norm([p.grad for _, p in present])).float()
        self.recorder.put([name for name, _ in present], norms, step, table="gradient")
        kernels = [n for n, (_, p) in enumerate(present) if p.ndim > 1]
        self.recorder.put([f"gradient/{network}"], torch.linalg.vector_norm(norms), step)
        if len(kernels) > 1:
            ratio = norms[kernels[0]] / norms[kernels[-1]]
            self.recorder.put([f"grad/{network}_first_to_last"], ratio, step, log=True)

    def _finish_watch(self, number: int, network: str, step: int) -> None:
        """Between two steps of an optimizer its gradients have to be found cleared, at least once."""
        seen = self._watched.pop(number, None)
        if not seen:
            return
        if any(norm is None for norm in seen):
            self.recorder.history.add_row("carried", network, step, 0.0)
        else:
            self.recorder.put([network], torch.stack(seen).min(), step, table="carried")

    def _judge_leaks(self, trainer: Trainer, network: str) -> None:
        """What the passes before this step did to other networks counts against the discriminator's."""
        judges = self.recorder.history.facts.discriminators
        if network in judges:
            others = [id(o) for o in trainer.optimizers if self._of(o)[1] not in judges]
            self._suspects |= {number: self._reached[number] for number in others if number in self._reached}
        else:
            self._suspects = {}  # no pass since the discriminator's: it was one for both
        self._reached = {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Settle what leaked in this batch, and fetch."""
        if self._is_game and self.due(trainer):
            leaks = {**self._leaks, **self._suspects}
            for optimizer in trainer.optimizers:
                if id(optimizer) in leaks:
                    value = torch.as_tensor(leaks[id(optimizer)])
                    self.recorder.put([self._of(optimizer)[1]], value, steps_done(trainer), table="leaked")
        self._before = {}
        self._forget_passes()
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def state_dict(self) -> dict[str, Any]:
        """What was seen between two steps of an optimizer, which a checkpoint may come between."""
        return {"watched": {number: list(seen) for number, seen in self._watched.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on watching."""
        self._loaded = {number: list(seen) for number, seen in state_dict["watched"].items()}

    def _norm(self, optimizer: Optimizer) -> Tensor | None:
        gradients = [p.grad for p in self._of(optimizer)[3] if p.grad is not None]
        return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)).float()) if gradients else None

    def _of(self, optimizer: Optimizer) -> tuple[int, str, list[str], list[Parameter]]:
        """Network, names and parameters that an optimizer holds, in the order of the network."""
        held = {id(p) for group in optimizer.param_groups for p in group["params"] if p.requires_grad}
        known = self._named.get(id(optimizer))
        if known is None or known[0] != len(held):  # the first step, or layers were unfrozen
            pairs = [(name, p) for name, p in self._model.named_parameters() if id(p) in held]
            known = len(held), network_name(self._model, optimizer), [name for name, _ in pairs], [p for _, p in pairs]
            self._named[id(optimizer)] = known
        return known
