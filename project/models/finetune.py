"""Fine-tuning: which encoder stages are frozen, from which epoch on they train, and how fast."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn
from torch.nn import Parameter

from project.networks.layers import require
from workbench.errors import UserError


@dataclass(frozen=True)
class FineTuning:
    """How a network whose encoder is pretrained is trained on; by default all of it alike.

    Frozen stages get no gradient, and their norm layers keep their running statistics. What is frozen follows from the
    epoch alone, so that resuming is exact.

    Args:
        freeze_stages: This many of the encoder's first stages are frozen; all: the whole encoder.
        freeze_norms: The encoder's norm layers are frozen, for batches too small to measure running statistics.
        unfreeze: Epoch and how many of the first stages are frozen from then on: {2: 3, 5: 0}; {}: it never changes.
        encoder_rate: Share of the learning rate that the encoder gets.
        stage_decay: Share of the next deeper stage's rate that each stage gets, above 0; 1: all the same. 0.7 is usual.
    """

    freeze_stages: int | Literal["all"] = 0
    freeze_norms: bool = False
    unfreeze: dict[int, int] = field(default_factory=dict)
    encoder_rate: float = 1.0
    stage_decay: float = 1.0

    def __post_init__(self) -> None:
        counts = [0 if self.freeze_stages == "all" else self.freeze_stages, *self.unfreeze.values()]
        require(
            "model.finetune is impossible",
            {
                "freeze_stages and the counts in unfreeze must be at least 0": min(counts) >= 0,
                "unfreeze names epochs from 1 on; freeze_stages is for epoch 0": min(self.unfreeze, default=1) >= 1,
                "encoder_rate and stage_decay must be above 0": min(self.encoder_rate, self.stage_decay) > 0,
            },
        )

    @property
    def freezes(self) -> bool:
        """Whether anything is frozen at some time."""
        return bool(self.freeze_stages or self.freeze_norms or any(self.unfreeze.values()))

    def frozen_stages(self, epoch: int | None, stages: int) -> int:
        """How many of the first stages, of this many, are frozen in an epoch; None: in all of them."""
        if epoch is None:
            return min(self.frozen_stages(epoch, stages) for epoch in (0, *self.unfreeze))
        begun = [begin for begin in self.unfreeze if begin <= epoch]
        count = self.unfreeze[max(begun)] if begun else self.freeze_stages
        return stages if count == "all" else min(count, stages)


def freeze(network: nn.Module, tuning: FineTuning, epoch: int | None) -> None:
    """Freeze what is to be frozen in an epoch (None: only what is never trained), and unfreeze the rest."""
    stages = stages_of(network)
    wrong = [n for n in (tuning.freeze_stages, *tuning.unfreeze.values()) if n != "all" and n > len(stages)]
    if wrong:
        raise UserError(f"model.finetune names {wrong[0]} stages, and the encoder has {len(stages)}.")
    count = tuning.frozen_stages(epoch, len(stages))
    for number, parts in enumerate(stages):
        for module, parameters in _modules_of(parts):
            is_norm = "Norm" in type(module).__name__ and not list(module.children())  # no block that holds one
            frozen = number < count or (tuning.freeze_norms and is_norm)
            if module is not None:
                module.training = network.training and not frozen
            for parameter in parameters:
                parameter.requires_grad_(not frozen)


def parameter_groups(network: nn.Module, tuning: FineTuning) -> list[Any]:
    """What an optimizer gets: the parameters that require gradients now.

    Where the encoder has rates of its own, in groups: first that of everything else, then one for each stage, each with
    its ``name`` and the ``factor`` on the learning rate.
    """
    scales_rates = tuning.encoder_rate != 1 or tuning.stage_decay != 1
    groups = [{"params": list(network.parameters()), "name": "rest", "factor": 1.0}]
    if tuning.freezes or scales_rates:
        stages = [[p for _, parameters in _modules_of(parts) for p in parameters] for parts in stages_of(network)]
        encoder = {id(p) for parameters in stages for p in parameters}
        groups[0]["params"] = [p for p in network.parameters() if id(p) not in encoder]
        for number, parameters in enumerate(stages, start=1):
            factor = tuning.encoder_rate * tuning.stage_decay ** (len(stages) - number)
            groups.append({"params": parameters, "name": f"stage {number}", "factor": factor})
    for group in groups:
        group["params"] = [p for p in group["params"] if p.requires_grad]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise UserError("Nothing of the network is left to train: see model.finetune.freeze_stages.")
    return groups if scales_rates else [p for group in groups for p in group["params"]]


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
