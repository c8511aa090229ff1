"""Gradient clipping, network by network, and the norms of the gradients."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from workbench.distributed import is_sharded
from workbench.errors import UserError
from workbench.lightning_private import is_accumulating, logs_now

INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class GradientClipping(Callback):
    """Clip the gradients of each network, and log their norms.

    A network is a part of the module whose parameters an optimizer holds, such as ``generator``; ``model`` are those of
    the module itself. Gradients are clipped right before the optimizer's step: accumulated, averaged over processes,
    unscaled. All those of a step with a NaN or an infinite one become zero. The host never waits for the device, and
    manual optimization is possible, unlike in Lightning's own clipping.

    Logged every `trainer.log_every_n_steps`: ``grad/NETWORK_norm``, before clipping, and ``grad/NETWORK_clipped`` and
    ``_dropped``, the shares of the steps since the last log that were clipped, and whose gradients were not finite.

    Args:
        norm: Scale the gradients of each network down to this norm, above 0; null switches it off.
    """

    def __init__(self, norm: float | None = None) -> None:
        if norm is not None and not norm > 0:
            raise UserError(f"gradient_clipping.norm is {norm}: it must be above 0, or null for no limit.")
        self.norm, self.enabled = norm, norm is not None
        self._measured: dict[str, dict[str, Any]] = {}  # of each network, since the last log
        self._known: dict[int, tuple[int, dict[str, list[Parameter]]]] = {}  # networks of each optimizer

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._known = {}
        if not self.enabled:
            return
        if trainer.gradient_clip_val:
            raise UserError(
                f"trainer.gradient_clip_val is {trainer.gradient_clip_val}, and gradient_clipping has a limit as well: "
                "gradients would be clipped twice.\nUse gradient_clipping alone: --trainer.gradient_clip_val null"
            )
        if is_sharded(trainer):
            raise UserError(
                f"gradient_clipping does not work under {type(trainer.strategy).__name__}, where each process has a "
                "part of the gradients.\nUse --trainer.strategy ddp, or no limit: --gradient_clipping.norm null"
            )
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        if scaled and any(getattr(optimizer, "_step_supports_amp_scaling", False) for optimizer in trainer.optimizers):
            raise UserError(
                "gradient_clipping does not work under 16-mixed with a fused optimizer: it unscales gradients too "
                "late.\nSet fused: false in the optimizer's init_args, or --trainer.precision bf16-mixed"
            )

    @torch.no_grad()
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        for name, parameters in self._networks_of(pl_module, optimizer).items() if self.enabled else ():
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            if gradients:
                _clip(gradients, self.norm, self._measured.setdefault(name, defaultdict(int)))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if is_accumulating(trainer) or not logs_now(trainer):
            return
        for name, measured in self._measured.items():
            pl_module.log(f"grad/{name}_norm", measured["norm"])
            for key in ("clipped", "dropped"):
                pl_module.log(f"grad/{name}_{key}", measured[key] / measured["steps"])
        self._measured = {}

    def state_dict(self) -> dict[str, Any]:
        return {"measured": {name: dict(measured) for name, measured in self._measured.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        loaded = state_dict.get("measured", {})
        self._measured = {name: defaultdict(int, measured) for name, measured in loaded.items()}

    def _networks_of(self, pl_module: LightningModule, optimizer: Optimizer) -> dict[str, list[Parameter]]:
        """Name -> parameters of each network that the optimizer holds."""
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        if self._known.get(id(optimizer), (0, {}))[0] != len(held):  # the first step, or layers were unfrozen
            networks: dict[str, list[Parameter]] = defaultdict(list)
            for name, parameter in pl_module.named_parameters():
                if id(parameter) in held:
                    network, dot, _ = name.partition(".")
                    networks[network if dot else "model"].append(parameter)
            self._known[id(optimizer)] = len(held), networks
        return self._known[id(optimizer)][1]


def _clip(gradients: list[Tensor], limit: float, measured: dict[str, Any]) -> None:
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    finite = norm.isfinite()
    measured["norm"] = norm
    measured["steps"] += 1
    measured["clipped"] = measured["clipped"] + ((norm > limit) & finite)
    measured["dropped"] = measured["dropped"] + ~finite
    scale = (limit / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grads_with_norm_ does
    torch._foreach_mul_(gradients, scale)
    # A NaN times 0 is NaN; but its bits, taken for an integer, times 0 are 0, and times 1 unchanged.
    torch._foreach_mul_([g.view(INTEGERS[g.element_size()]) for g in gradients], finite.to(torch.int32))
