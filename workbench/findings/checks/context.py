"""What the checks look at: batches of the data module, and the model as a fit would start with it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning_utilities.core.apply_func import apply_to_collection, apply_to_collections
from torch import Tensor, nn
from torch.optim import Optimizer

from workbench.findings.checks.trial import Trial, overfit, trial_copy
from workbench.findings.engine import Found, Passed, Result
from workbench.task import discriminators_of, input_of, networks_of, target_of

MAX_SAMPLES, MAX_VALUES, MAX_BATCHES = 500, 12_000_000, 40  # of the training batches that are measured


def first_tensor(values: Any) -> Tensor | None:
    """The first tensor in a tensor, tuple or dict of any depth."""
    found: list[Tensor] = []
    apply_to_collection(values, Tensor, found.append)
    return found[0] if found else None


def floats_of(batch: Any) -> dict[str, Tensor]:
    """Input, target and further floating-point tensors of a batch, by name."""
    named = {"input": input_of(batch), "target": target_of(batch)}
    further = batch if isinstance(batch, dict) else batch._asdict() if hasattr(batch, "_asdict") else {}
    named |= {name: values for name, values in further.items() if all(values is not known for known in named.values())}
    return {name: values for name, values in named.items() if isinstance(values, Tensor) and values.is_floating_point()}


def concatenate(one: Any, other: Any) -> Any:
    joined = apply_to_collections(one, other, Tensor, lambda a, b: torch.cat([a, b]) if a.ndim else a)
    return {key: joined[key] for key in one} if isinstance(one, dict) else joined  # it gives a dict any order


def with_nonzero_weights(module: nn.Module) -> nn.Module:
    """A copy in eval mode, in which weights that start at 0, as last layers may, are small numbers."""
    network = copy.deepcopy(module).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim >= 2 and weight.numel() > 1 and bool((weight == 0).all()):
                scale = 0.1 / max(1, weight[0].numel()) ** 0.5
                weight.copy_(scale * torch.randn(weight.shape, generator=generator))
    return network


@dataclass(frozen=True)
class Part:
    """A network of the model, with something that it is given in training."""

    path: str  # as an attribute of the model; empty: the model itself
    module: nn.Module  # on the device; not to be changed
    input: Tensor  # its first argument, (B, ...)
    target: Tensor | None = None  # what it should give; None for a discriminator, or where that is not known
    further: tuple = ()  # further arguments

    @property
    def name(self) -> str:
        return self.path or "model"

    def full_name(self, inner: str) -> str:
        return f"{self.path}.{inner}".strip(".")

    def run(self, network: nn.Module, values: Tensor | None = None) -> Tensor:
        """The first tensor that the network, or a copy of it, gives for an input."""
        return first_tensor(network(self.input if values is None else values, *self.further))

    def trace(self, network: nn.Module, visit: Callable[[str, nn.Module, tuple, Any], None]) -> Tensor:
        """Run a copy of the network; ``visit(name, module, args, output)`` is called after each module's pass."""
        handles = [
            module.register_forward_hook(lambda module, args, output, name=name: visit(name, module, args, output))
            for name, module in network.named_modules()
        ]
        output = self.run(network)
        for handle in handles:
            handle.remove()
        return output


@dataclass
class CheckContext:
    """Everything at hand before the first step."""

    model: LightningModule  # set up as for a fit: statistics taken, initial weights loaded
    data: LightningDataModule | LightningModule  # what has the loaders; the model itself where there is no data module
    trainer: Trainer
    optimizers: list[Optimizer]
    pristine: LightningModule  # a copy of the model from before it met a trainer, for trial runs
    config: dict[str, Any] = field(default_factory=dict)  # resolved, as plain values; empty in a script
    step: ClassVar[int] = 0

    @contextlib.contextmanager
    def inference(self) -> Iterator[None]:
        """Without gradients, in the precision that the model trains in."""
        with torch.no_grad(), self.trainer.precision_plugin.forward_context():
            yield

    @cached_property
    def loader(self) -> Any:
        return self.data.train_dataloader()

    def raw_batches(self, epoch: int, most: int = MAX_BATCHES) -> Iterator[Any]:
        """The first batches of an epoch, as the loader gives them."""
        sampler = getattr(self.loader, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        for position, batch in enumerate(self.loader, 1):  # zip and islice would leave a worker's next batch waiting
            yield batch
            if position == most:
                return

    def prepare(self, raw: Any, training: bool = True) -> Any:
        """What the model sees of a loader's batch."""
        batch = self.data.transfer_batch_to_device(raw, self.trainer.strategy.root_device, 0)
        if hasattr(self.data, "make_batch"):
            batch = self.data.make_batch(batch, training=training)
        else:
            batch = self.data.on_after_batch_transfer(batch, 0)
        return self.trainer.precision_plugin.convert_input(batch)

    @cached_property
    def batches(self) -> list[Any]:
        """Training batches, some 500 samples in all."""
        found, samples, values = [], 0, 0
        for raw in self.raw_batches(0):
            found.append(self.prepare(raw))
            first = first_tensor(found[-1])
            samples, values = samples + len(first), values + first.numel()
            if samples >= MAX_SAMPLES or values >= MAX_VALUES:
                break
        return found

    @cached_property
    def batch(self) -> Any:
        """A few training samples, for passes through the networks."""
        return self.batch_of(8)

    def batch_of(self, count: int, pixels: int = 8 * 128 * 128) -> Any:
        """At most so many training samples of one size, and at most so many pixels where that leaves two."""
        shape = first_tensor(self.batches[0]).shape[1:]
        joined, *others = [batch for batch in self.batches if first_tensor(batch).shape[1:] == shape]
        while others and len(first_tensor(joined)) < count:
            joined = concatenate(joined, others.pop(0))
        first = first_tensor(joined)
        count = max(2, min(count, pixels // (first[0, 0].numel() if first.ndim > 2 else 1)))
        return apply_to_collection(joined, Tensor, lambda t: t[:count] if t.ndim and len(t) == len(first) else t)

    def signal(self, values: Tensor, batch: Any) -> Tensor:
        """The channels of an input, or of pixels rearranged from it, that show what the task is about: those before
        maps and hints, as many as the data module's ``signal_channels``, if it has such.
        """
        channels = getattr(self.data, "signal_channels", None)
        if channels is None or values.ndim != 4 or values.shape[1] % (given := first_tensor(batch).shape[1]):
            return values
        return values[:, : channels * (values.shape[1] // given)]

    @cached_property
    def parts(self) -> list[Part]:
        """The networks, the main one first: with ``model.network_examples(batch)``, or what a training step gives."""
        networks = networks_of(self.model)
        if hasattr(self.model, "network_examples"):
            examples = self.model.network_examples(self.batch)
            return [Part(name, networks[name], *example) for name, example in examples.items()]
        calls, critics, target = self._calls(), discriminators_of(self.model, networks), target_of(self.batch)
        if "" in calls:  # the step calls the model itself, which may do more than its network
            networks = {"": self.model} | {name: networks[name] for name in critics}
        target = target if isinstance(target, Tensor) and target.is_floating_point() else None
        found = []
        for name, network in networks.items():
            first, *further = calls.get(name, (None if name in critics else input_of(self.batch),))
            if isinstance(first, Tensor):
                found.append(Part(name, network, first, None if name in critics else target, tuple(further)))
        return found

    def _calls(self) -> dict[str, tuple]:
        """The arguments that each network is first called with in one training step of a copy."""
        model = trial_copy(self.pristine, self.model.state_dict())
        names = {network: name for name, network in {**networks_of(model), "": model}.items()}
        calls: dict[str, tuple] = {}

        def listen(module: nn.Module, args: tuple) -> None:
            if args and names[module] not in calls:
                calls[names[module]] = apply_to_collection(args, Tensor, lambda t: t.detach().clone())

        for network in names:
            network.register_forward_pre_hook(listen)
        overfit(model, self.batch, self.trainer, Trial())
        return calls

    @property
    def main(self) -> Part:
        """The network whose output is the model's."""
        return self.parts[0]

    def target(self, batch: Any) -> Any:
        """What the main network should give for a batch."""
        if hasattr(self.model, "network_examples"):
            return self.model.network_examples(batch)[self.main.name][1]
        return target_of(batch)

    @property
    def starts_from_others(self) -> bool:
        """Whether the weights are those of an earlier training."""
        return bool(self.model.hparams.get("init_from"))

    @property
    def is_pretrained(self) -> bool:
        """Whether weights are those of an earlier training, or a part was built with pretrained ones."""
        return self.starts_from_others or any(getattr(module, "pretrained", False) for module in self.model.modules())


def judge(value: float, where: str, limit: float, advice: str) -> Result:
    """A fault above the limit."""
    return Passed(value, limit) if value <= limit else Found(where, value, limit, advice)


def listed(names: Sequence[str], most: int = 4) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
