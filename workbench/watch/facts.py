"""What the rules have to know of a model beforehand: its tensors, who trains them, and which key sets what."""

from __future__ import annotations

import inspect
import re

from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.nn.modules.conv import _ConvTransposeNd
from torch.optim import Optimizer

from workbench.findings import Facts, Knob, Parameter

DISCRIMINATOR = re.compile(r"disc|critic|^net_?d$|^d$", re.IGNORECASE)
HELPER = re.compile(r"loss|perceptual|metric|lpips|vgg|teacher|(^|[._])ema([._]|$)|^scores\.", re.IGNORECASE)
"""Names of what judges or accompanies a network, and is not trained itself."""
PENALTY = re.compile(r"^train/(?!gradient)\w*(penalty|regulari[sz]ation|weight_decay|_reg$)")


def gather(trainer: Trainer, model: LightningModule) -> Facts:
    """Everything that the rules want to know of a model, at the start of its training."""
    facts = Facts(parameters=_parameters(trainer, model))
    facts.discriminators = frozenset(name for name in facts.networks() if DISCRIMINATOR.search(name))
    facts.adversarial = bool(facts.discriminators)
    arguments = inspect.signature(type(model).__init__).parameters
    facts.arguments = frozenset(arguments)
    facts.batch_size = getattr(getattr(trainer.datamodule, "hparams", None), "batch_size", None)
    for optimizer in trainer.optimizers:
        _take_optimizer(facts, network_name(model, optimizer), optimizer, arguments)
    for name in ("l1", "l2"):
        if getattr(model, name, 0) > 0:
            facts.penalties[f"train/{name}_penalty"] = Knob(f"model.init_args.{name}", getattr(model, name))
    for name in ("adversarial", "reconstruction", "perceptual", "feature_matching"):
        weight = getattr(model, f"{name}_weight", None)
        if isinstance(weight, int | float):
            facts.losses[name] = Knob(f"model.init_args.{name}_weight", float(weight))
    facts.color = hasattr(model, "space") or hasattr(getattr(trainer.datamodule, "pairs", None), "keeps_lightness")
    facts.higher_is_better = _directions(model)
    built_so = any(getattr(module, "pretrained", False) for module in model.modules())
    facts.pretrained = bool(model.hparams.get("init_from") or trainer.ckpt_path or built_so)
    return facts


def note_later(facts: Facts, trainer: Trainer, model: LightningModule) -> None:
    """Note the tensors that have been let learn since training started; those that are frozen again are forgotten."""
    found = _parameters(trainer, model)
    facts.later = {name: parameter for name, parameter in found.items() if name not in facts.parameters}


def network_name(model: LightningModule, optimizer: Optimizer) -> str:
    """What an optimizer trains: the model's part whose parameters it holds, or several, as ``encoder+decoder``."""
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    parts = [name.split(".")[0] for name, parameter in model.named_parameters() if id(parameter) in held]
    return "+".join(dict.fromkeys(parts)) or "model"


def _take_optimizer(facts: Facts, network: str, optimizer: Optimizer, arguments: dict) -> None:
    group = optimizer.param_groups[0]
    key = next((key for key in (f"{network}_optimizer", "optimizer") if key in arguments), None)
    prefix = f"model.init_args.{key}.init_args." if key else "model.init_args."
    rate = group.get("initial_lr", group["lr"])
    if key or "lr" in arguments:
        facts.learning_rate[network] = Knob(f"{prefix}lr", float(rate))
    if group.get("weight_decay", 0) > 0:
        facts.weight_decay[network] = Knob(f"{prefix}weight_decay", float(group["weight_decay"]))
    if group.get("decoupled_weight_decay") or type(optimizer).__name__ in ("AdamW", "Lion", "SGDW"):
        facts.decoupled |= {network}


def _parameters(trainer: Trainer, model: LightningModule) -> dict[str, Parameter]:
    holders = {
        id(parameter): number
        for number, optimizer in enumerate(trainer.optimizers)
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    networks = [network_name(model, optimizer) for optimizer in trainer.optimizers]
    all_in_eval = not any(module.training for module in model.modules())
    found: dict[str, Parameter] = {}
    for path, module in model.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            name = f"{path}.{own}" if path else own
            if not parameter.requires_grad:
                continue
            helper = bool(HELPER.search(path)) or (not module.training and not all_in_eval)
            role, fan_in = _role(module, own, parameter)
            holder = holders.get(id(parameter))
            network = name.split(".")[0] if holder is None else networks[holder]
            found[name] = Parameter(network, role, fan_in, holder, helper)
    return found


def _role(module: nn.Module, name: str, parameter: nn.Parameter) -> tuple[str, int]:
    if parameter.ndim < 2:
        return ("bias" if name == "bias" and "Norm" not in type(module).__name__ else "gain"), 0
    if isinstance(module, _ConvTransposeNd):
        taps = 1  # each output pixel sees kernel / stride of the taps
        for kernel, stride in zip(module.kernel_size, module.stride, strict=True):
            taps *= max(kernel // stride, 1)
        return "weight", parameter.shape[0] // module.groups * taps
    return "weight", parameter[0].numel()


def _directions(model: LightningModule) -> dict[str, bool]:
    scores = getattr(model, "scores", None)
    if not isinstance(scores, nn.ModuleDict) or "val" not in scores:
        return {}
    metrics = getattr(scores["val"], "output", {})
    return {
        name: metric.higher_is_better
        for name, metric in metrics.items()
        if getattr(metric, "higher_is_better", None) is not None
    }
