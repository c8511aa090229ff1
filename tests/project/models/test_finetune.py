"""What a fine-tuning freezes, unfreezes and slows down; the numbers are counted by hand or published ones."""

from __future__ import annotations

import copy
from functools import partial

import lightning as L
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs

from project.models import FineTuning, GANColorizer, ImageRestorer
from project.models.finetune import freeze
from project.networks import BackboneUNet, PatchGAN, UNet
from workbench.errors import UserError


def tiny(**options) -> UNet:
    """Three stages with norms: head and first level, second level, middle."""
    torch.manual_seed(0)
    return UNet(**{"widths": [4, 6, 8], "norm": "batch", "residual": True, **options})


STAGES = [("head.", "encoder.0."), ("down.0.", "encoder.1."), ("down.1.", "middle.")]


def restorer(tuning: FineTuning, network: nn.Module | None = None, **options) -> ImageRestorer:
    options = {"optimizer": partial(torch.optim.Adam, lr=0.01), **options}
    return ImageRestorer(network or tiny(), finetune=tuning, **options)


def stage(number: int, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if name.startswith(STAGES[number])}


def trained(model: L.LightningModule) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def changes(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


RESNET18 = 11_689_512 - 513_000
"""Parameters of torchvision's ResNet-18 as published, less those of its classifier."""


@pytest.mark.parametrize(
    ("tuning", "frozen"),
    [
        (FineTuning(), 0),
        (FineTuning(freeze_stages="all"), RESNET18),
        (FineTuning(freeze_stages=5), RESNET18),
        (FineTuning(freeze_stages=1), 64 * 3 * 7 * 7 + 2 * 64),
        (FineTuning(freeze_stages=2), 64 * 3 * 7 * 7 + 2 * 64 + 4 * (64 * 64 * 9 + 2 * 64)),
        (FineTuning(freeze_norms=True), 2 * (64 + 4 * 64 + 5 * 128 + 5 * 256 + 5 * 512)),
    ],
)
def test_the_number_of_trained_parameters(tuning, frozen):
    network = BackboneUNet("resnet18", "none", widths=[4] * 6)
    assert sum(p.numel() for p in network.encoder.parameters()) == RESNET18
    everything = sum(p.numel() for p in network.parameters())
    assert trained(restorer(tuning, network)) == everything - frozen


def test_what_is_frozen_stays_to_the_last_bit_and_the_rest_learns(make_trainer, data):
    model = restorer(FineTuning(freeze_stages=1, freeze_norms=True))
    before = copy.deepcopy(model.network.state_dict())
    make_trainer(max_epochs=2).fit(model, data)  # with validations, after which training goes on
    changed = changes(before, model.network.state_dict())
    norms = {n for n, m in model.network.named_modules() if isinstance(m, nn.BatchNorm2d)}
    encoder = [name for number in range(3) for name in stage(number, before)]
    of_norms = {name for name in encoder if name.rpartition(".")[0] in norms}
    assert len(of_norms) == 5 * 2 * 3 and not of_norms & changed and not stage(0, before).keys() & changed
    learns = {name for name in before if name not in of_norms and not name.startswith(STAGES[0])}
    assert {name for name in learns if "normalize" not in name and not name.endswith("bias")} <= changed


def test_synchronized_norms_are_frozen_too():
    """Lightning puts them in the norms' places while everything that is ever to learn wants gradients."""
    tuning = FineTuning("all", unfreeze={1: 0})
    model = restorer(tuning, BackboneUNet("mobilenet_v3_small", "none", stages=2))
    freeze(model.network, tuning, None)
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    encoder = model.network.encoder
    norms = [part for part in encoder.modules() if isinstance(part, nn.SyncBatchNorm)]
    assert len(norms) == 4 and all(norm.training and norm.weight.requires_grad for norm in norms)
    model.on_fit_start()
    assert not any(norm.training or norm.weight.requires_grad for norm in norms)
    before = copy.deepcopy(encoder.state_dict())
    model.network(torch.rand(1, 3, 32, 48))
    assert not changes(before, encoder.state_dict())


class Epochs(L.Callback):
    """Notes which stages get gradients in each epoch."""

    def __init__(self) -> None:
        self.seen: dict[int, tuple[bool, ...]] = {}

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        parameters = dict(pl_module.network.named_parameters())
        self.seen[trainer.current_epoch] = tuple(
            any(p.grad is not None for p in stage(number, parameters).values()) for number in range(3)
        )


def test_stages_are_unfrozen_at_their_epochs(make_trainer, data):
    model, epochs = restorer(FineTuning("all", unfreeze={2: 1, 3: 0})), Epochs()
    make_trainer(max_epochs=4, callbacks=[epochs]).fit(model, data)
    none, two, all_three = (False, False, False), (False, True, True), (True, True, True)
    assert epochs.seen == {0: none, 1: none, 2: two, 3: all_three}


def test_each_stage_has_its_rate(make_trainer, data):
    model = restorer(FineTuning(encoder_rate=0.5, stage_decay=0.1), optimizer=partial(torch.optim.SGD, lr=0.1))
    data.batches = data.batches[:1]
    before = dict(copy.deepcopy(model.network).named_parameters())
    trainer = make_trainer(max_epochs=1, limit_val_batches=0)
    trainer.fit(model, data)
    names = [group["name"] for group in trainer.optimizers[0].param_groups]
    assert names == ["rest", "stage 1", "stage 2", "stage 3"]
    for name, parameter in model.network.named_parameters():
        number = next((n for n in range(3) if name.startswith(STAGES[n])), None)
        rate = 0.1 if number is None else 0.1 * 0.5 * 0.1 ** (2 - number)
        torch.testing.assert_close(before[name] - rate * parameter.grad, parameter, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "scheduler",
    [
        partial(lrs.OneCycleLR, max_lr=0.02, total_steps=12),
        partial(lrs.StepLR, step_size=1),
        partial(lrs.CosineAnnealingLR, T_max=5),
    ],
)
def test_rates_keep_their_proportions_under_any_scheduler(make_trainer, data, scheduler):
    class Rates(L.Callback):
        def __init__(self) -> None:
            self.seen = []

        def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
            self.seen.append([group["lr"] for group in optimizer.param_groups])

    def rates(tuning: FineTuning) -> list[list[float]]:
        seen = Rates()
        optimizer = partial(torch.optim.SGD, lr=0.02, momentum=0.9)
        model = restorer(tuning, optimizer=optimizer, scheduler=scheduler)
        make_trainer(max_epochs=2, limit_val_batches=0, callbacks=[seen]).fit(model, data)
        return seen.seen

    plain, scaled = rates(FineTuning()), rates(FineTuning(encoder_rate=0.25))
    assert len({round(rate, 9) for (rate,) in plain}) > 1
    for (rate,), others in zip(plain, scaled, strict=True):
        assert others == pytest.approx([rate, rate / 4, rate / 4, rate / 4])


def test_of_a_gan_the_generator_is_tuned(make_trainer, color_data):
    torch.manual_seed(0)
    generator = UNet(in_channels=5, out_channels=2, widths=[4, 6, 8], norm="batch")
    adversary = PatchGAN(in_channels=7, width=4, layers=1)
    model = GANColorizer(generator, adversary, finetune=FineTuning(1, encoder_rate=0.1))
    before = copy.deepcopy(model.state_dict())
    trainer = make_trainer(max_epochs=2)
    trainer.fit(model, color_data)
    changed = changes(before, model.state_dict())
    frozen = {f"generator.{name}" for name in stage(0, generator.state_dict())}
    assert frozen and not frozen & changed
    assert any(name.startswith("discriminator.") for name in changed)
    assert [group["lr"] for group in trainer.optimizers[0].param_groups] == pytest.approx([2e-4, 2e-5, 2e-5])
    assert [group["lr"] for group in trainer.optimizers[1].param_groups] == [2e-4]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FineTuning(freeze_stages=-1, encoder_rate=0.0), "(?s)must be at least 0.*must be above 0"),
        (lambda: FineTuning(unfreeze={0: 1}), "epochs from 1 on"),
        (lambda: restorer(FineTuning(freeze_stages=4)), "names 4 stages, and the encoder has 3"),
        (lambda: restorer(FineTuning("all"), nn.Conv2d(3, 3, 3)), r"encoder_stages\(\)"),
    ],
)
def test_a_mistake_is_named(make, words):
    with pytest.raises(UserError, match=words):
        make()


def test_what_shows_at_the_start_of_a_run_is_named(make_trainer, data):
    class Whole(nn.Conv2d):
        def encoder_stages(self) -> list[list[str]]:
            return [[""]]

    nothing_left = restorer(FineTuning("all"), Whole(3, 3, 3, padding=1))
    cyclic = restorer(FineTuning(encoder_rate=0.5), scheduler=partial(lrs.CyclicLR, base_lr=0.001, max_lr=0.02))
    for model, words in ((nothing_left, "Nothing of the network is left"), (cyclic, "CyclicLR sets all rates alike")):
        with pytest.raises(UserError, match=words):
            make_trainer(max_epochs=1).fit(model, data)
