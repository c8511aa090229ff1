"""Fine-tuning: which encoder stages are frozen, from which epoch on they train, and how fast."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR

from workbench.errors import UserError


@dataclass(frozen=True)
class FineTuning:
    """How a network whose encoder is pretrained is trained on; by default all of it alike.

    Frozen stages get no gradient, and their norm layers keep their running statistics. What is frozen follows from the
    epoch alone, so that resuming is exact.

    Args:
        freeze_stages: This many of the encoder's first stages are frozen; all: the whole encoder.
        freeze_norms: The norm layers of the whole encoder are frozen: gain, shift and running statistics. For
            batches too small to measure them.
        unfreeze: Epoch and how many of the first stages are frozen from then on: {2: 3, 5: 0}; {}: it never changes.
        encoder_rate: Share of the learning rate that the encoder gets.
        stage_decay: Share of the next deeper stage's rate that each stage gets, above 0; 1: all the same. 0.7 is usual:
            what the first stages see is the same in all images.
    """

    freeze_stages: int | Literal["all"] = 0
    freeze_norms: bool = False
    unfreeze: dict[int, int] = field(default_factory=dict)
    encoder_rate: float = 1.0
    stage_decay: float = 1.0

    def __post_init__(self) -> None:
        counts = {f"unfreeze[{epoch}]": count for epoch, count in self.unfreeze.items()}
        counts["freeze_stages"] = self.freeze_stages
        faults = [f"{n} must be at least 0, not {count}" for n, count in counts.items() if count != "all" and count < 0]
        if any(epoch < 1 for epoch in self.unfreeze):
            faults.append(f"unfreeze names epochs from 1 on (0 is freeze_stages), not {min(self.unfreeze)}")
        for name in ("encoder_rate", "stage_decay"):
            if getattr(self, name) <= 0:
                faults.append(f"{name} must be above 0, not {getattr(self, name)}; freeze_stages stops the training")
        if faults:
            raise UserError("model.finetune is impossible:\n" + "\n".join(f"- {fault}" for fault in faults))

    @property
    def freezes(self) -> bool:
        """Whether anything is frozen at some time."""
        return bool(self.freeze_stages or self.freeze_norms or any(self.unfreeze.values()))

    def frozen_stages(self, epoch: int, stages: int) -> int:
        """How many of the first stages are frozen in an epoch, of this many."""
        begun = [begin for begin in self.unfreeze if begin <= epoch]
        count = self.unfreeze[max(begun)] if begun else self.freeze_stages
        return stages if count == "all" else min(count, stages)

    def always_frozen(self, stages: int) -> int:
        """How many of the first stages are never trained, of this many."""
        return min(self.frozen_stages(epoch, stages) for epoch in (0, *self.unfreeze))


def freeze(network: nn.Module, tuning: FineTuning, epoch: int | None) -> None:
    """Freeze what is to be frozen in an epoch (None: only what is never trained), and unfreeze the rest."""
    stages = stages_of(network)
    wrong = [n for n in (tuning.freeze_stages, *tuning.unfreeze.values()) if n != "all" and n > len(stages)]
    if wrong:
        raise UserError(f"model.finetune names {wrong[0]} stages, and the encoder has {len(stages)}.")
    count = tuning.always_frozen(len(stages)) if epoch is None else tuning.frozen_stages(epoch, len(stages))
    for number, parts in enumerate(stages):
        for module, parameters in _modules_of(parts):
            frozen = number < count or (tuning.freeze_norms and is_norm(module))
            if module is not None:
                module.training = network.training and not frozen
            for parameter in parameters:
                parameter.requires_grad_(not frozen)


def parameter_groups(network: nn.Module, tuning: FineTuning) -> list[Any]:
    """What an optimizer gets: the parameters that are trained at some time of the run.

    Where the encoder has rates of its own, in groups: first that of everything else, then one for each stage, each with
    its ``name`` and the ``factor`` on the learning rate.
    """
    scales_rates = tuning.encoder_rate != 1 or tuning.stage_decay != 1
    trained = [p for p in network.parameters() if p.requires_grad]
    if tuning.freezes or scales_rates:
        stages = [list(_modules_of(parts)) for parts in stages_of(network)]
        encoder = {id(p) for modules in stages for _, parameters in modules for p in parameters}
        groups = [{"params": [p for p in trained if id(p) not in encoder], "name": "rest", "factor": 1.0}]
        for number, modules in enumerate(stages):
            kept = [own for module, own in modules if not (tuning.freeze_norms and is_norm(module))]
            parameters = [p for own in kept for p in own] if number >= tuning.always_frozen(len(stages)) else []
            factor = tuning.encoder_rate * tuning.stage_decay ** (len(stages) - 1 - number)
            groups.append({"params": parameters, "name": f"stage {number + 1}", "factor": factor})
        if scales_rates:
            return [group for group in groups if group["params"]]
        trained = [p for group in groups for p in group["params"]]
    if not trained:
        raise UserError("Nothing of the network is left to train: see model.finetune.freeze_stages.")
    return trained


def scale_rates(optimizer: Optimizer, scheduler: LRScheduler | None = None) -> None:
    """Multiply each group's learning rate by its ``factor``, once; with a scheduler, those that it has set itself."""
    groups = optimizer.param_groups
    factors = [group.get("factor", 1.0) for group in groups]
    keys = ("initial_lr", "max_lr", "min_lr", "lr") if isinstance(scheduler, OneCycleLR) else ("lr",)
    if scheduler is None or isinstance(scheduler, OneCycleLR | CyclicLR):
        for group, factor in zip(groups, factors, strict=True):
            group.update({key: group[key] * factor for key in keys})
    if isinstance(scheduler, CyclicLR):
        for rates in (scheduler.base_lrs, scheduler.max_lrs):
            rates[:] = [rate * factor for rate, factor in zip(rates, factors, strict=True)]


def stages_of(network: nn.Module) -> list[list[nn.Module | Parameter]]:
    """The layers of each stage of a network's encoder, from the first on."""
    if not hasattr(network, "encoder_stages"):
        raise UserError(
            f"model.finetune needs to know what the encoder of {type(network).__name__} is.\n"
            "Leave it out, or write encoder_stages(), which lists the names of its layers, as in BackboneUNet."
        )
    named = {**dict(network.named_modules()), **dict(network.named_parameters())}
    return [[named[name] for name in names] for names in network.encoder_stages()]


def _modules_of(parts: list[nn.Module | Parameter]) -> Iterator[tuple[nn.Module | None, list[Parameter]]]:
    """Every module of a stage with its own parameters; None with a parameter that a stage names itself."""
    for part in parts:
        if isinstance(part, Parameter):
            yield None, [part]
        else:
            yield from ((module, list(module.parameters(recurse=False))) for module in part.modules())


def is_norm(module: nn.Module | None) -> bool:
    """Whether it is a norm layer, not a block that holds one."""
    return "Norm" in type(module).__name__ and not any(True for _ in module.children())
