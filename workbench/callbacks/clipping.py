"""Gradient clipping, network by network, and the norms of the gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from workbench.errors import UserError, choose
from workbench.lightning_private import logs_now
from workbench.strategies import is_sharded

INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class GradientClipping(Callback):
    """Clip the gradients of each network, and log their norms.

    A network is a part of the module whose parameters an optimizer holds, such as ``generator`` and ``discriminator``.
    Its gradients are clipped right before the optimizer's step, where they are complete: accumulated, averaged over
    processes, unscaled. Lightning's own clipping refuses manual optimization. The host never waits for the device.

    With a limit, all gradients of a step with a NaN or an infinite one become zero: it would make every weight NaN.

    Logged every `trainer.log_every_n_steps`: ``grad/NETWORK_norm``, before clipping; with a limit also
    ``grad/NETWORK_clipped`` and ``grad/NETWORK_dropped``, the shares of the steps since the last log that were clipped,
    and whose gradients were not finite.

    Args:
        norm: Scale the gradients of a network down to this norm; null for no limit.
        networks: Another limit for a network by its name, such as {discriminator: 1.0}; null for none.

    Raises:
        UserError: A limit is not above 0, a network is unknown, the trainer clips as well, or the strategy or the
            optimizer does not allow it.
    """

    def __init__(self, norm: float | None = None, networks: dict[str, float | None] | None = None) -> None:
        self.norm, self.networks = norm, dict(networks or {})
        for key, limit in {"norm": norm, **{f"networks.{name}": at for name, at in self.networks.items()}}.items():
            if limit is not None and not limit > 0:
                raise UserError(f"gradient_clipping.{key} is {limit}: it must be above 0, or null for no limit.")
        self._parts: list[dict[str, _Network]] = []  # of each optimizer
        self._loaded: list[dict[str, Any]] = []
        self._complete, self._stepped = True, False

    @property
    def clips(self) -> bool:
        """Whether there is any limit."""
        return self.norm is not None or any(limit is not None for limit in self.networks.values())

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.clips and trainer.gradient_clip_val:
            raise UserError(
                f"trainer.gradient_clip_val is {trainer.gradient_clip_val}, and gradient_clipping has a limit as well: "
                "gradients would be clipped twice.\nUse gradient_clipping alone: --trainer.gradient_clip_val null"
            )
        obstacle = _obstacle(trainer)
        if obstacle is not None and self.clips:
            raise UserError(obstacle)
        self._complete, self._stepped = obstacle is None, False
        names = [name for optimizer in trainer.optimizers for name in _split(pl_module, optimizer)]
        self.networks = {choose("gradient_clipping.networks", name, names): at for name, at in self.networks.items()}
        self._parts = [{} for _ in trainer.optimizers]
        for number, loaded in enumerate(self._loaded[: len(trainer.optimizers)]):
            for network in self._networks_of(pl_module, number, trainer.optimizers[number]):
                network.measured.update(loaded.get(network.name, {}))
        self._loaded = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if not self._complete:
            return
        self._stepped = True
        number = next(n for n, known in enumerate(trainer.optimizers) if known is optimizer)
        for network in self._networks_of(pl_module, number, optimizer):
            # A network that is not trained in every batch may never be in one that is logged.
            overdue = trainer.global_step - network.measured["at"] >= (trainer.log_every_n_steps or math.inf)
            if network.limit is not None or overdue or logs_now(trainer):
                network.measure_and_clip()
                network.measured["at"] = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self._stepped and logs_now(trainer):  # a batch that only accumulates is not logged
            for network in (network for parts in self._parts for network in parts.values()):
                pl_module.log_dict(network.pop_metrics())
        self._stepped = False

    def teardown(self, *_: Any, stage: str) -> None:
        self._parts = []  # release the parameters

    def state_dict(self) -> dict[str, Any]:
        """What was measured since the last log."""
        return {"networks": [{name: part.measured for name, part in parts.items()} for parts in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict["networks"]

    def _networks_of(self, pl_module: LightningModule, number: int, optimizer: Optimizer) -> Iterable[_Network]:
        parts, count = self._parts[number], sum(len(group["params"]) for group in optimizer.param_groups)
        if count != sum(len(part.parameters) for part in parts.values()):  # at first, or layers were unfrozen
            for name, parameters in _split(pl_module, optimizer).items():
                limit = self.networks.get(name, self.norm)
                parts.setdefault(name, _Network(name, limit)).parameters = parameters
        return parts.values()


class _Network:
    """The gradients of one network, and what was measured since it was last logged."""

    def __init__(self, name: str, limit: float | None) -> None:
        self.name, self.limit = name, limit
        self.parameters: list[Parameter] = []
        self.measured: dict[str, Any] = {"at": -math.inf, "norm": None, "steps": 0, "clipped": 0, "dropped": 0}

    @torch.no_grad()
    def measure_and_clip(self) -> None:
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if not gradients:
            return
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        self.measured["norm"] = norm
        if self.limit is None:
            return
        finite = norm.isfinite()
        self.measured["steps"] += 1
        self.measured["clipped"] = self.measured["clipped"] + ((norm > self.limit) & finite)
        self.measured["dropped"] = self.measured["dropped"] + ~finite
        scale = (self.limit / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grads_with_norm_ does
        torch._foreach_mul_(gradients, scale)
        # A NaN times 0 is NaN; but its bits, taken for an integer, times 0 are 0, and times 1 unchanged.
        torch._foreach_mul_([g.view(INTEGERS[g.element_size()]) for g in gradients], finite.to(torch.int32))

    def pop_metrics(self) -> dict[str, Tensor]:
        """What to log; empty if there was no step since the last time."""
        norm, steps = self.measured["norm"], self.measured["steps"]
        metrics = {} if norm is None else {"norm": norm}
        if steps:
            metrics |= {key: self.measured[key] / steps for key in ("clipped", "dropped")}
        self.measured |= {"norm": None, "steps": 0, "clipped": 0, "dropped": 0}
        return {f"grad/{self.name}_{key}": value for key, value in metrics.items()}


def _split(pl_module: LightningModule, optimizer: Optimizer) -> dict[str, list[Parameter]]:
    """Name -> parameters of each network that the optimizer holds; "model" for those of the module itself."""
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    parts: dict[str, list[Parameter]] = {}
    for name, parameter in pl_module.named_parameters():
        if id(parameter) in held:
            part, dot, _ = name.partition(".")
            parts.setdefault(part if dot else "model", []).append(parameter)
    return parts


def _obstacle(trainer: Trainer) -> str | None:
    """Why gradients are not complete before the optimizer's step, where that is so."""
    if is_sharded(trainer):
        return (
            f"gradient_clipping does not work under {type(trainer.strategy).__name__}, where each process has a part "
            "of the gradients.\nUse --trainer.strategy ddp, or no limit: --gradient_clipping.norm null"
        )
    scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
    if scaled and any(getattr(optimizer, "_step_supports_amp_scaling", False) for optimizer in trainer.optimizers):
        return (
            "gradient_clipping does not work under 16-mixed with a fused optimizer: it unscales gradients too late.\n"
            "Set fused: false in the optimizer's init_args, or --trainer.precision bf16-mixed"
        )
    return None
