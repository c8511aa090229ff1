"""What the rules have to know of a model beforehand: its tensors, who trains them, and which setting is what."""

from __future__ import annotations

import inspect
import math
import re
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from torch import nn
from torch.nn.modules.conv import _ConvTransposeNd
from torch.optim import Optimizer

from workbench.findings import ModelInfo, Parameter, Setting
from workbench.monitor import metric_directions
from workbench.task import HELPER, discriminators_of

PENALTY = re.compile(r"^train/(?!gradient)\w*(penalty|regulari[sz]ation|weight_decay|_reg$)")


def collect(trainer: Trainer, model: LightningModule) -> ModelInfo:
    """Everything that the rules want to know of a model, at the start of its training."""
    arguments = inspect.signature(type(model).__init__).parameters
    info = ModelInfo(
        parameters=trainable_parameters(trainer, model),
        higher_is_better=metric_directions(model),
        color=hasattr(model, "space"),
        arguments=frozenset(arguments),
        command_line=any(isinstance(callback, SaveConfigCallback) for callback in trainer.callbacks),
    )
    info.discriminators = frozenset(discriminators_of(model, info.networks()))
    script = "Trainer(gradient_clip_val={})" if model.automatic_optimization else "self.clip_gradients(optimizer, {})"
    info.clipping = Setting("--gradient_clipping.norm {}" if info.command_line else script)
    for optimizer in trainer.optimizers:
        _add_optimizer(info, network_name(model, optimizer), optimizer)
    weights = {f"train/{name}_penalty": name for name in ("l1", "l2") if getattr(model, name, 0) > 0}
    info.penalties = {name: _setting(info, key, getattr(model, key)) for name, key in weights.items()}
    for name in ("adversarial", "reconstruction", "perceptual", "feature_matching"):
        weight = getattr(model, f"{name}_weight", None)
        if isinstance(weight, int | float):
            info.losses[name] = _setting(info, f"{name}_weight", weight)
    built_so = any(getattr(module, "pretrained", False) for module in model.modules())
    info.pretrained = bool(model.hparams.get("init_from") or trainer.ckpt_path or built_so)
    return info


def trainable_parameters(trainer: Trainer, model: LightningModule) -> dict[str, Parameter]:
    """Every tensor with ``requires_grad``, by its name."""
    groups = [(number, group) for number, other in enumerate(trainer.optimizers) for group in other.param_groups]
    holders = {id(parameter): number for number, group in groups for parameter in group["params"]}
    networks = [network_name(model, optimizer) for optimizer in trainer.optimizers]
    all_in_eval = not any(module.training for module in model.modules())
    found: dict[str, Parameter] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            path, _, own = name.rpartition(".")
            module = model.get_submodule(path)
            helper = bool(HELPER.search(path)) or (not module.training and not all_in_eval)
            holder = holders.get(id(parameter))
            network = name.split(".")[0] if holder is None else networks[holder]
            found[name] = Parameter(network, *_role(module, own, parameter), holder, helper)
    return found


def network_name(model: LightningModule, optimizer: Optimizer) -> str:
    """The model's part whose parameters an optimizer holds, or a few, as ``encoder+decoder``; of many, ``model``."""
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    parts = dict.fromkeys(name.split(".")[0] for name, p in model.named_parameters() if id(p) in held)
    return "+".join(parts) if 0 < len(parts) < 4 else "model"


def _setting(info: ModelInfo, argument: str, value: Any) -> Setting:
    form = f"--model.init_args.{argument} {{}}" if info.command_line else f"{argument} = {{}}"
    return Setting(form, float(value))


def _add_optimizer(info: ModelInfo, network: str, optimizer: Optimizer) -> None:
    group = optimizer.param_groups[0]
    key = next((key for key in (f"{network}_optimizer", "optimizer") if key in info.arguments), None)

    def setting(name: str, value: float) -> Setting:
        if info.command_line and (key or name in info.arguments):
            return _setting(info, f"{key}.init_args.{name}" if key else name, value)
        return Setting(f"the optimizer's {name} = {{}}", float(value))

    if "lr" in group:
        info.learning_rate[network] = setting("lr", group.get("initial_lr", group["lr"]))
    if group.get("weight_decay", 0) > 0:
        info.weight_decay[network] = setting("weight_decay", group["weight_decay"])
    if group.get("decoupled_weight_decay") or type(optimizer).__name__ in ("AdamW", "Lion", "SGDW"):
        info.decoupled |= {network}


def _role(module: nn.Module, name: str, parameter: nn.Parameter) -> tuple[str, int]:
    if parameter.ndim < 2:
        return ("bias" if name == "bias" and "Norm" not in type(module).__name__ else "gain"), 0
    if isinstance(module, _ConvTransposeNd):
        # Each output pixel sees kernel / stride of the taps.
        taps = math.prod(max(k // stride, 1) for k, stride in zip(module.kernel_size, module.stride, strict=True))
        return "weight", parameter.shape[0] // module.groups * taps
    return "weight", parameter[0].numel()
