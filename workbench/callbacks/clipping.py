"""Gradient clipping, network by network, and how large the gradients are that reach its first and its last layer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from workbench.callbacks.gradients import found_or_measured, take
from workbench.errors import UserError, choose
from workbench.sharding import is_sharded

OWN = "model"
"""Name for the parameters that belong to the model itself, not to a network in it."""
INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class GradientClipping(Callback):
    """Clip the gradients of each network, and log how large they were.

    A network is a part of the model whose parameters an optimizer holds: ``network`` of a restorer, ``generator`` and
    ``discriminator`` of a GAN. Its gradients are clipped right before its optimizer's step, where they are whole in
    automatic and in manual optimization: accumulated, averaged over the processes, and unscaled under 16-mixed.
    Without any limit nothing is clipped, and gradients are only measured on the steps that are logged.

    A step whose gradients are not all finite would make every weight NaN, since their norm is NaN too. Where there is a
    limit, all gradients of such a step count as zero. (A gradient scaler leaves such a step out by itself.)

    Logged every ``trainer.log_every_n_steps``, for each network:

    - ``grad/NETWORK_norm``: norm of all gradients, before clipping.
    - ``grad/NETWORK_first_layer``, ``grad/NETWORK_last_layer``: the same of the first and of the last kernel alone.
      Compare a UNet's with ``skip: concat`` and ``skip: none`` to see what skip connections do for the first layer.
      A kernel is a weight of two dimensions or more; first and last are meant in the order in which the network
      registers its layers. In this project's networks that is the order in which ``forward`` uses them.
    - with a limit ``grad/NETWORK_clipped`` and ``grad/NETWORK_dropped``: the shares of the steps since the last log
      that were clipped, and whose gradients were not finite.

    Args:
        norm: Gradients of a network with a larger norm are scaled down to it; null for no limit.
        value: Each single gradient is cut off at plus and minus this; null for no limit. Instead of norm.
        networks: Own limit of a network by its name, such as {discriminator: 1.0}; null for none.

    Raises:
        UserError: A limit is not above 0, or both norm and value are given.
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
                raise UserError(f"gradient_clipping.{key} must be above 0, or null for no limit; it is {limit}.")
        if norm is not None and value is not None:
            raise UserError("gradient_clipping: norm and value are two ways to clip; set one of them to null.")
        self.limit = norm if value is None else value
        self.by_value = value is not None
        self.limits = dict(networks or {})
        self._networks: dict[int, dict[str, _Network]] = {}  # of each optimizer
        self._counts: dict[int, int] = {}
        self._whole = True
        self._stepped = False

    @property
    def clips(self) -> bool:
        """Whether there is any limit."""
        return self.limit is not None or any(limit is not None for limit in self.limits.values())

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what would clip twice.

        Raises:
            UserError: ``trainer.gradient_clip_val`` is set as well.
        """
        if stage == "fit" and self.clips and trainer.gradient_clip_val:
            raise UserError(
                f"trainer.gradient_clip_val is {trainer.gradient_clip_val}, and gradient_clipping has a limit as well: "
                "gradients would be clipped twice.\n"
                "Leave the clipping to one of them: --trainer.gradient_clip_val null"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the networks.

        Raises:
            UserError: No network has a name that ``networks`` gives; or gradients cannot be clipped under the
                trainer's strategy or by its optimizer.
        """
        self._networks, self._counts, self._stepped = {}, {}, False
        names = [name for optimizer in trainer.optimizers for name in _parts(pl_module, optimizer)]
        self.limits = {choose("gradient_clipping.networks", name, names): at for name, at in self.limits.items()}
        obstacle = _obstacle(trainer)
        self._whole = obstacle is None
        if obstacle is not None and self.clips:
            raise UserError(obstacle)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Measure and clip the gradients that this optimizer is about to use."""
        if not self._whole:
            return
        self._stepped = True
        left = take(optimizer)
        for network in self._of(pl_module, optimizer):
            # A network that is not trained in every batch may never be in one that is logged.
            overdue = trainer.global_step - network.looked >= (trainer.log_every_n_steps or math.inf)
            if network.limit is not None or overdue or _logs_now(trainer):
                network.look(left)
                network.looked = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Log what was seen since the last log."""
        if self._stepped and _logs_now(trainer):  # a batch that is only accumulated is not logged
            for networks in self._networks.values():
                for network in networks.values():
                    pl_module.log_dict(network.take())
        self._stepped = False

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the parameters."""
        self._networks, self._counts = {}, {}

    def _of(self, pl_module: LightningModule, optimizer: Optimizer) -> Iterable[_Network]:
        networks = self._networks.setdefault(id(optimizer), {})
        count = sum(len(group["params"]) for group in optimizer.param_groups)
        if self._counts.get(id(optimizer)) != count:  # the first step, or layers were unfrozen
            self._counts[id(optimizer)] = count
            for name, parameters in _parts(pl_module, optimizer).items():
                limit = self.limits.get(name, self.limit)
                networks.setdefault(name, _Network(name, limit, self.by_value)).parameters = parameters
        return networks.values()


class _Network:
    """The gradients of one network, and what was seen of them since they were last logged."""

    def __init__(self, name: str, limit: float | None, by_value: bool) -> None:
        self.name, self.limit, self.by_value = name, limit, by_value
        self.parameters: list[Parameter] = []
        self.looked = -math.inf
        self._norms: dict[str, Tensor] = {}
        self._forget()

    def _forget(self) -> None:
        self._steps = 0
        self._clipped: Tensor | int = 0
        self._dropped: Tensor | int = 0

    @torch.no_grad()
    def look(self, left: dict[int, tuple[int, int, Tensor]]) -> None:
        """Measure the gradients, unless it is done, and clip them where there is a limit; nothing waits for the device.

        Args:
            left: Norms that another callback has measured in this step.
        """
        parameters = [parameter for parameter in self.parameters if parameter.grad is not None]
        if not parameters:
            return
        gradients = [parameter.grad for parameter in parameters]
        norms = found_or_measured(parameters, left)
        norm = torch.linalg.vector_norm(torch.stack(norms))
        kernels = [of_one for parameter, of_one in zip(parameters, norms, strict=True) if parameter.ndim > 1]
        self._norms = {"norm": norm}
        if kernels:
            self._norms |= {"first_layer": kernels[0], "last_layer": kernels[-1]}
        if self.limit is not None:
            largest = torch.stack(torch._foreach_norm(gradients, math.inf)).max() if self.by_value else norm
            finite = norm.isfinite()
            self._clip(gradients, norm, finite)
            self._steps += 1
            self._clipped = self._clipped + ((largest > self.limit) & finite)
            self._dropped = self._dropped + ~finite

    def _clip(self, gradients: list[Tensor], norm: Tensor, finite: Tensor) -> None:
        # Passes over all gradients take time; where asking makes nobody wait, those that change nothing are left out.
        near = is_near(norm)
        if self.by_value:
            torch.nn.utils.clip_grad_value_(self.parameters, self.limit)
        else:
            scale = (self.limit / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grads_with_norm_ does
            if not (near and (scale >= 1).numpy()):
                torch._foreach_mul_(gradients, scale)
        if not (near and finite.numpy()):
            _zero_unless(finite, gradients)

    def take(self) -> dict[str, Tensor]:
        """What to log; then start anew. Empty when there was no step since the last time."""
        values, self._norms = self._norms, {}
        if self._steps:
            values |= {"clipped": self._clipped / self._steps, "dropped": self._dropped / self._steps}
        self._forget()
        return {f"grad/{self.name}_{what}": value for what, value in values.items()}


def is_near(value: Tensor) -> bool:
    """Whether a value lies in memory that can be read at once; all others are behind a device's queue."""
    return value.device.type == "cpu"


def _parts(pl_module: LightningModule, optimizer: Optimizer) -> dict[str, list[Parameter]]:
    """Name -> parameters of each network that the optimizer holds, in the order in which they are registered."""
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    parts: dict[str, list[Parameter]] = {}
    for name, parameter in pl_module.named_parameters():
        if id(parameter) in held:
            part, dot, _ = name.partition(".")
            parts.setdefault(part if dot else OWN, []).append(parameter)
    return parts


def _logs_now(trainer: Trainer) -> bool:
    return bool(trainer._logger_connector.should_update_logs or trainer.fast_dev_run)


def _obstacle(trainer: Trainer) -> str | None:
    """Why gradients are not whole before the optimizer's step, where that is so."""
    if is_sharded(trainer):
        return (
            f"gradient_clipping does not work under {type(trainer.strategy).__name__}, where each process holds only "
            "a part of the gradients.\n"
            "Use --trainer.strategy ddp, or no limit: --gradient_clipping.norm null"
        )
    scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
    if scaled and any(getattr(optimizer, "_step_supports_amp_scaling", False) for optimizer in trainer.optimizers):
        return (
            "gradient_clipping under 16-mixed needs gradients that are unscaled before the optimizer's step, and a "
            "fused optimizer unscales them within it.\n"
            "Set fused: false in the optimizer's init_args, or --trainer.precision bf16-mixed"
        )
    return None


def _zero_unless(finite: Tensor, gradients: list[Tensor]) -> None:
    """Set the gradients to zero where ``finite`` is False, without waiting for the device to tell."""
    # A NaN times 0 is NaN; but its bits, taken for an integer, times 0 are 0, and times 1 unchanged.
    torch._foreach_mul_([g.view(INTEGERS[g.element_size()]) for g in gradients], finite.to(torch.int32))
