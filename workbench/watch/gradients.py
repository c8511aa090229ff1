"""How large the gradient is that reaches each layer, and whether it belongs to this step alone."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from workbench.watch.model_info import network_name
from workbench.watch.recorder import Recorder

Norm = Tensor | float | None


class GradientFlow:
    """Measures the norm of every tensor's gradient right before the optimizer uses it: unscaled, accumulated, averaged
    over processes, and not yet clipped.

    Logged for each network: ``grad/NETWORK_first_to_last``, the norm of the first weight's gradient over the last
    one's, in the order in which the network uses its layers. For the rules also: which tensors have no gradient, where
    one was not finite first, whether gradients are cleared between steps, and whether a discriminator's backward passes
    reach the generator.
    """

    def __init__(
        self, recorder: Recorder, trainer: Trainer, model: LightningModule, state: dict[str, Any] | None = None
    ) -> None:
        self.recorder, self.trainer, self.model = recorder, trainer, model
        self._known: dict[int, tuple[int, str, dict[str, Parameter]]] = {}
        # By an optimizer's number: the gradients that were left, before each backward pass since its last step.
        self._left: dict[int, list[Norm]] = {int(n): list(seen) for n, seen in (state or {}).get("left", {}).items()}
        self._reset_passes()

    def _reset_passes(self) -> None:
        self._before: dict[int, Norm] = {}
        self._changed: dict[int, Tensor | float] = {}  # by the passes since the last step, by optimizer
        self._suspects: dict[int, Tensor | float] = {}  # by the discriminator's passes, until the next one
        self._leaks: dict[int, Tensor | float] = {}

    @property
    def _discriminators(self) -> frozenset[str]:
        return self.recorder.history.model.discriminators

    def before_backward(self, due: bool) -> None:
        """See what is left of the gradients of the step before."""
        for number, seen in self._left.items():
            seen.append(self._norm(number))
        if self._discriminators and due:
            self._leaks |= self._suspects
            self._suspects = {}
            self._before = {number: self._norm(number) for number in range(len(self.trainer.optimizers))}

    def after_backward(self) -> None:
        """See whose gradients this backward pass has changed."""
        for number, before in self._before.items():
            after = self._norm(number)
            change = 0.0 if after is None else after if before is None else (after - before).abs()
            self._changed[number] = self._changed.get(number, 0.0) + change
        self._before = {}

    def before_step(self, optimizer: Optimizer, step: int, due: bool) -> None:
        """Measure the gradients that are about to be used."""
        number = next(n for n, other in enumerate(self.trainer.optimizers) if other is optimizer)
        network, parameters = self._of(number)
        self._finish_left(number, network, step)
        if not due:
            return
        present = {name: p for name, p in parameters.items() if p.grad is not None}
        for name in [name for name in parameters if name not in present]:
            self.recorder.history.add(name, step, 1.0, table="missing")
        if not present:
            return
        self._left[number] = []
        if self._discriminators:
            self._judge_passes(network)
        norms = torch.stack(torch._foreach_norm([p.grad for p in present.values()])).float()
        self.recorder.put(list(present), norms, step, table="gradient")
        self.recorder.put([f"gradient/{network}"], torch.linalg.vector_norm(norms), step)
        weights = [position for position, p in enumerate(present.values()) if p.ndim > 1]
        if len(weights) > 1:
            ratio = norms[weights[0]] / norms[weights[-1]]
            self.recorder.put([f"grad/{network}_first_to_last"], ratio, step, log=True)

    def _finish_left(self, number: int, network: str, step: int) -> None:
        """Between two steps of an optimizer its gradients have to be found cleared, at least once."""
        seen = self._left.pop(number, None)
        if not seen:
            return
        if any(norm is None for norm in seen):
            self.recorder.history.add(network, step, 0.0, table="carried")
        else:
            norms = [torch.as_tensor(norm, device=self.model.device, dtype=torch.float32) for norm in seen]
            self.recorder.put([network], torch.stack(norms).min(), step, table="carried")

    def _judge_passes(self, network: str) -> None:
        """What the passes before this step did to other networks counts against the discriminator's."""
        if network in self._discriminators:
            others = [n for n in self._changed if self._of(n)[0] not in self._discriminators]
            self._suspects |= {number: self._changed[number] for number in others}
        else:
            self._suspects = {}  # no pass since the discriminator's: it was one for both
        self._changed = {}

    def end_batch(self, step: int, due: bool) -> None:
        """Settle what leaked in this batch."""
        if self._discriminators and due:
            for number, value in sorted({**self._leaks, **self._suspects}.items()):
                self.recorder.put([self._of(number)[0]], torch.as_tensor(value), step, table="leaked")
        self._reset_passes()

    def state_dict(self) -> dict[str, Any]:
        """What was seen since each optimizer's last step, which a checkpoint may come after."""
        left = {n: [norm if norm is None else float(norm) for norm in seen] for n, seen in self._left.items()}
        return {"left": left}

    def _norm(self, number: int) -> Tensor | None:
        gradients = [p.grad for p in self._of(number)[1].values() if p.grad is not None]
        return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)).float()) if gradients else None

    def _of(self, number: int) -> tuple[str, dict[str, Parameter]]:
        """The network that an optimizer trains, and the parameters that it holds, in the order of the network."""
        optimizer = self.trainer.optimizers[number]
        held = {id(p) for group in optimizer.param_groups for p in group["params"] if p.requires_grad}
        if number not in self._known or self._known[number][0] != len(held):  # the first step, or layers were unfrozen
            parameters = {name: p for name, p in self.model.named_parameters() if id(p) in held}
            self._known[number] = len(held), network_name(self.model, optimizer), parameters
        return self._known[number][1:]
