"""What of a network that starts from other weights is trained on, from which epoch on, and how fast."""

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
    """How a network whose encoder has learned something before is trained on; as it stands, all of it alike.

    Frozen stages get no gradient, and their norm layers keep their running statistics. What is frozen follows from the
    epoch alone, so that a resumed run goes on as if it had never stopped.

    Args:
        freeze_stages: So many of the encoder's first stages stay as they are; all: the whole encoder.
        freeze_norms: The norm layers of the whole encoder stay as they are: gain, shift and running statistics. For
            batches too small to measure them.
        unfreeze: Epoch and how many of the first stages are frozen from then on: {2: 3, 5: 0}; {}: never another
            number.
        encoder_rate: Share of the learning rate that the encoder gets.
        stage_decay: Of that, the share that each stage gets of the rate of the next deeper one, above 0; 1: all the
            same. 0.7 is usual: what the first stages see is the same in all images.

    Raises:
        UserError: For an impossible number.
    """

    freeze_stages: int | Literal["all"] = 0
    freeze_norms: bool = False
    unfreeze: dict[int, int] = field(default_factory=dict)
    encoder_rate: float = 1.0
    stage_decay: float = 1.0

    def __post_init__(self) -> None:
        faults = []
        counts = {f"unfreeze[{epoch}]": count for epoch, count in self.unfreeze.items()}
        for name, count in {"freeze_stages": self.freeze_stages, **counts}.items():
            if count != "all" and count < 0:
                faults.append(f"{name} must not be below 0, not {count}")
        if any(epoch < 1 for epoch in self.unfreeze):
            faults.append(f"unfreeze names epochs from 1 on (0 is freeze_stages), not {min(self.unfreeze)}")
        for name in ("encoder_rate", "stage_decay"):
            if getattr(self, name) <= 0:
                faults.append(f"{name} must be above 0, not {getattr(self, name)}; freeze_stages stops the learning")
        if faults:
            raise UserError("model.finetune is impossible:\n" + "\n".join(f"- {fault}" for fault in faults))

    @property
    def freezes(self) -> bool:
        """Whether anything is frozen at some time."""
        return bool(self.freeze_stages or self.freeze_norms or any(self.unfreeze.values()))

    @property
    def scales_rates(self) -> bool:
        """Whether the encoder learns at another rate than the rest."""
        return self.encoder_rate != 1 or self.stage_decay != 1

    def frozen_stages(self, epoch: int, stages: int) -> int:
        """How many of an encoder's first stages are frozen in an epoch, of so many."""
        begun = [begin for begin in self.unfreeze if begin <= epoch]
        count = self.unfreeze[max(begun)] if begun else self.freeze_stages
        return stages if count == "all" else min(count, stages)

    def always_frozen(self, stages: int) -> int:
        """How many of an encoder's first stages are never trained, of so many."""
        return min(self.frozen_stages(epoch, stages) for epoch in (0, *self.unfreeze))


def freeze(network: nn.Module, tuning: FineTuning, epoch: int | None) -> None:
    """Freeze what is to be frozen in an epoch, and let the rest of the encoder learn.

    Args:
        network: In training mode; has ``encoder_stages()``, such as the networks of this project.
        tuning: Says what.
        epoch: Of the run, from 0; None: freeze only what is never trained.

    Raises:
        UserError: The network does not say what its encoder is, or has fewer stages.
    """
    stages = stages_of(network)
    _check_count(tuning, len(stages))
    count = tuning.always_frozen(len(stages)) if epoch is None else tuning.frozen_stages(epoch, len(stages))
    for number, parts in enumerate(stages):
        still = number < count
        for part in parts:
            if isinstance(part, Parameter):
                part.requires_grad_(not still)
                continue
            for module in part.modules():
                stays = still or (tuning.freeze_norms and is_norm(module))
                module.training = network.training and not stays
                for parameter in module.parameters(recurse=False):
                    parameter.requires_grad_(not stays)


def parameter_groups(network: nn.Module, tuning: FineTuning) -> list[Any]:
    """What an optimizer gets: the parameters that are trained at some time of the run.

    Returns:
        The parameters; or, where the encoder has rates of its own, groups: first that of everything else, then one for
        each stage, each with its ``name`` and the ``factor`` on the learning rate.

    Raises:
        UserError: Nothing is left to train.
    """
    trained = [p for p in network.parameters() if p.requires_grad]
    if tuning.freezes or tuning.scales_rates:
        stages = stages_of(network)
        never = tuning.always_frozen(len(stages))
        of_stages = [_trained_in(parts, number < never, tuning) for number, parts in enumerate(stages)]
        encoder = {id(p) for parts in stages for p in parameters_of(parts)}
        rest = [p for p in trained if id(p) not in encoder]
        trained = rest + [p for parameters in of_stages for p in parameters]
        if tuning.scales_rates:
            deepest = len(stages) - 1
            factors = [tuning.encoder_rate * tuning.stage_decay ** (deepest - number) for number in range(len(stages))]
            groups = [{"params": rest, "name": "rest", "factor": 1.0}]
            groups += [
                {"params": parameters, "name": f"stage {number}", "factor": factor}
                for number, (parameters, factor) in enumerate(zip(of_stages, factors, strict=True), 1)
            ]
            return [group for group in groups if group["params"]]
    if not trained:
        raise UserError("Nothing of the network is left to train: see model.finetune.freeze_stages.")
    return trained


def scale_rates(optimizer: Optimizer) -> None:
    """Give each group its share of the learning rate, once, as the optimizer is made."""
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * group.get("factor", 1.0)


def scale_schedule(scheduler: LRScheduler) -> None:
    """The same for schedulers that set rates of their own, whatever the optimizer's were."""
    groups = scheduler.optimizer.param_groups
    factors = [group.get("factor", 1.0) for group in groups]
    if isinstance(scheduler, OneCycleLR):
        for group, factor in zip(groups, factors, strict=True):
            for key in ("initial_lr", "max_lr", "min_lr", "lr"):
                group[key] = group[key] * factor
    elif isinstance(scheduler, CyclicLR):
        for group, factor in zip(groups, factors, strict=True):
            group["lr"] = group["lr"] * factor
        for rates in (scheduler.base_lrs, scheduler.max_lrs):
            rates[:] = [rate * factor for rate, factor in zip(rates, factors, strict=True)]


def stages_of(network: nn.Module) -> list[list[nn.Module | Parameter]]:
    """The layers of each stage of a network's encoder, from the first on.

    Raises:
        UserError: The network does not say what its encoder is.
    """
    if not hasattr(network, "encoder_stages"):
        raise UserError(
            f"model.finetune needs to know what the encoder of {type(network).__name__} is.\n"
            "Leave finetune out, or give the class a method encoder_stages() that lists the names of its layers, as "
            "project.networks.BackboneUNet does."
        )
    parameters, modules = dict(network.named_parameters()), dict(network.named_modules())
    return [[parameters[n] if n in parameters else modules[n] for n in names] for names in network.encoder_stages()]


def parameters_of(parts: list[nn.Module | Parameter]) -> Iterator[Parameter]:
    """The parameters of a stage."""
    for part in parts:
        yield from [part] if isinstance(part, Parameter) else part.parameters()


def is_norm(module: nn.Module) -> bool:
    """Whether it is a norm layer, not a block that holds one."""
    return "Norm" in type(module).__name__ and not any(True for _ in module.children())


def _trained_in(parts: list[nn.Module | Parameter], frozen: bool, tuning: FineTuning) -> list[Parameter]:
    """The parameters of a stage that are trained at some time."""
    if frozen:
        return []
    norms = {
        id(parameter)
        for part in parts
        if isinstance(part, nn.Module)
        for module in part.modules()
        if tuning.freeze_norms and is_norm(module)
        for parameter in module.parameters(recurse=False)
    }
    return [parameter for parameter in parameters_of(parts) if id(parameter) not in norms]


def _check_count(tuning: FineTuning, stages: int) -> None:
    named = [tuning.freeze_stages, *tuning.unfreeze.values()]
    wrong = [count for count in named if count != "all" and count > stages]
    if wrong:
        raise UserError(
            f"model.finetune names {wrong[0]} stages, and the encoder has {stages}: use a number up to that, or all."
        )
