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

MEASURED = ("measured_at", "_metrics", "_steps", "_clipped", "_dropped")
INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class GradientClipping(Callback):
    """Clip the gradients of each network, and log their norms.

    A network is a part of the module whose parameters an optimizer holds, such as ``generator`` and ``discriminator``.
    Its gradients are clipped right before the optimizer's step, where they are complete under automatic and manual
    optimization: accumulated, averaged over processes, and unscaled under 16-mixed. Lightning's own clipping knows no
    networks and refuses manual optimization. The host never waits for the device.

    A step whose gradients are not all finite would make every weight NaN. With a limit, all gradients of such a step
    become zero. (A gradient scaler skips such a step by itself.)

    Logged every `trainer.log_every_n_steps`: ``grad/NETWORK_norm``, before clipping; with a limit also
    ``grad/NETWORK_clipped`` and ``grad/NETWORK_dropped``, the shares of the steps since the last log that were clipped,
    and whose gradients were not finite.

    Args:
        norm: Scale the gradients of a network down to this norm; null for no limit.
        value: Cut each gradient to plus and minus this; null for no limit. Instead of `norm`.
        networks: Another limit for a network by its name, such as {discriminator: 1.0}; null for none.

    Raises:
        UserError: A limit is not above 0, both norm and value are given, a network is unknown, the trainer clips as
            well, or the strategy or the optimizer does not allow it.
    """

    def __init__(
        self,
        norm: float | None = None,
        value: float | None = None,
        networks: dict[str, float | None] | None = None,
    ) -> None:
        limits = {"norm": norm, "value": value} | {f"networks.{name}": at for name, at in (networks or {}).items()}
        for key, limit in limits.items():
            if limit is not None and not limit > 0:
                raise UserError(f"gradient_clipping.{key} is {limit}: it must be above 0, or null for no limit.")
        if norm is not None and value is not None:
            raise UserError("gradient_clipping: norm and value exclude each other; set one of them to null.")
        self.limit = norm if value is None else value
        self.by_value = value is not None
        self.limits = dict(networks or {})
        self._networks: list[dict[str, _Network]] = []  # of each optimizer
        self._counts: list[int] = []  # of its parameters
        self._loaded: list[dict[str, Any]] = []
        self._complete = True
        self._stepped = False

    @property
    def clips(self) -> bool:
        """Whether there is any limit."""
        return self.limit is not None or any(limit is not None for limit in self.limits.values())

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and self.clips and trainer.gradient_clip_val:
            raise UserError(
                f"trainer.gradient_clip_val is {trainer.gradient_clip_val}, and gradient_clipping has a limit as well: "
                "gradients would be clipped twice.\nUse gradient_clipping alone: --trainer.gradient_clip_val null"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._networks, self._counts, self._stepped = [], [], False
        names = [name for optimizer in trainer.optimizers for name in _parts(pl_module, optimizer)]
        self.limits = {choose("gradient_clipping.networks", name, names): at for name, at in self.limits.items()}
        for number, optimizer in enumerate(trainer.optimizers):
            self._networks.append({})
            self._counts.append(-1)
            found = self._networks_of(pl_module, number, optimizer)
            for network in found if number < len(self._loaded) else []:
                vars(network).update(self._loaded[number].get(network.name, {}))
        self._loaded = []
        obstacle = _obstacle(trainer)
        self._complete = obstacle is None
        if obstacle is not None and self.clips:
            raise UserError(obstacle)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if not self._complete:
            return
        self._stepped = True
        number = next(n for n, known in enumerate(trainer.optimizers) if known is optimizer)
        for network in self._networks_of(pl_module, number, optimizer):
            # A network that is not trained in every batch may never be in one that is logged.
            overdue = trainer.global_step - network.measured_at >= (trainer.log_every_n_steps or math.inf)
            if network.limit is not None or overdue or _logs_now(trainer):
                network.measure_and_clip()
                network.measured_at = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self._stepped and _logs_now(trainer):  # a batch that only accumulates is not logged
            for networks in self._networks:
                for network in networks.values():
                    pl_module.log_dict(network.pop_metrics())
        self._stepped = False

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Release the parameters."""
        self._networks = []

    def state_dict(self) -> dict[str, Any]:
        """What was measured since the last log."""
        return {"networks": [{name: found.state() for name, found in networks.items()} for networks in self._networks]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict["networks"]

    def _networks_of(self, pl_module: LightningModule, number: int, optimizer: Optimizer) -> Iterable[_Network]:
        networks = self._networks[number]
        count = sum(len(group["params"]) for group in optimizer.param_groups)
        if self._counts[number] != count:  # at first, or layers were unfrozen
            self._counts[number] = count
            for name, parameters in _parts(pl_module, optimizer).items():
                limit = self.limits.get(name, self.limit)
                networks.setdefault(name, _Network(name, limit, self.by_value)).parameters = parameters
        return networks.values()


class _Network:
    """The gradients of one network, and what was measured since it was last logged."""

    def __init__(self, name: str, limit: float | None, by_value: bool) -> None:
        self.name, self.limit, self.by_value = name, limit, by_value
        self.parameters: list[Parameter] = []
        self.measured_at = -math.inf
        self._metrics: dict[str, Tensor] = {}
        self._steps, self._clipped, self._dropped = 0, 0, 0

    def state(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key in MEASURED}

    @torch.no_grad()
    def measure_and_clip(self) -> None:
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if not gradients:
            return
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        self._metrics = {"norm": norm}
        if self.limit is None:
            return
        largest = torch.stack(torch._foreach_norm(gradients, math.inf)).max() if self.by_value else norm
        finite = norm.isfinite()
        self._steps += 1
        self._clipped = self._clipped + ((largest > self.limit) & finite)
        self._dropped = self._dropped + ~finite
        near = is_near(norm)  # then passes over all gradients that would change nothing are skipped
        if self.by_value:
            torch.nn.utils.clip_grad_value_(self.parameters, self.limit)
        else:
            scale = (self.limit / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grads_with_norm_ does
            if not (near and (scale >= 1).numpy()):
                torch._foreach_mul_(gradients, scale)
        if not (near and finite.numpy()):
            # A NaN times 0 is NaN; but its bits, taken for an integer, times 0 are 0, and times 1 unchanged.
            torch._foreach_mul_([g.view(INTEGERS[g.element_size()]) for g in gradients], finite.to(torch.int32))

    def pop_metrics(self) -> dict[str, Tensor]:
        """What to log; empty if there was no step since the last time."""
        metrics, self._metrics = self._metrics, {}
        if self._steps:
            metrics |= {"clipped": self._clipped / self._steps, "dropped": self._dropped / self._steps}
        self._steps, self._clipped, self._dropped = 0, 0, 0
        return {f"grad/{self.name}_{what}": value for what, value in metrics.items()}


def is_near(value: Tensor) -> bool:
    """Whether reading a value waits for no device."""
    return value.device.type == "cpu"


def _parts(pl_module: LightningModule, optimizer: Optimizer) -> dict[str, list[Parameter]]:
    """Name -> parameters of each network that the optimizer holds; "model" for those of the module itself."""
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    parts: dict[str, list[Parameter]] = {}
    for name, parameter in pl_module.named_parameters():
        if id(parameter) in held:
            part, dot, _ = name.partition(".")
            parts.setdefault(part if dot else "model", []).append(parameter)
    return parts


def _logs_now(trainer: Trainer) -> bool:
    return logs_now(trainer) or bool(trainer.fast_dev_run)


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
