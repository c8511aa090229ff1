"""The learning-rate range test: its loss and rates step by step, what it suggests, and what it leaves untouched."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau
from torch.utils.data import DataLoader, TensorDataset

from project.__main__ import main
from workbench.errors import UserError
from workbench.tune.apply import rate_key, write_values
from workbench.tune.curve import Curve
from workbench.tune.lr import range_test
from workbench.tune.steps import Task, configured_rate

CPU = {"accelerator": "cpu"}
STEEP = 20.0  # curvature: gradient descent diverges above a rate of 2 / 20 = 0.1


class Ones(LightningDataModule):
    def __init__(self, count: int = 40, batch_size: int = 4) -> None:
        super().__init__()
        self.count, self.batch_size = count, batch_size

    def train_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(torch.ones(self.count, 1)), self.batch_size, shuffle=True)


class Quadratic(LightningModule):
    """loss = curvature / 2 * |w|^2 * scale, whatever the batch."""

    used: ClassVar[list[tuple[float, ...]]] = []  # the rates of each step
    scheduled: ClassVar[list[int]] = []  # the steps that a scheduler asked for

    def __init__(self, lr: float = 0.01, scale: float = 1.0, schedule: str = "") -> None:
        super().__init__()
        self.save_hyperparameters()
        self.w, self.b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        assert self.training
        return self.hparams.scale * STEEP / 2 * (self.w.square().sum() + self.b.square().sum())

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.used.append(tuple(group["lr"] for group in optimizer.param_groups))

    def _decay(self, step: int) -> float:
        self.scheduled.append(step)
        return 0.1**step

    def configure_optimizers(self) -> Any:
        groups = [{"params": [self.w]}, {"params": [self.b], "lr": self.hparams.lr / 4}]
        optimizer = SGD(groups, lr=self.hparams.lr)
        steps = {
            "step": lambda: {"scheduler": LambdaLR(optimizer, self._decay), "interval": "step"},
            "plateau": lambda: {"scheduler": ReduceLROnPlateau(optimizer), "monitor": "val/loss"},
            "cycle": lambda: {
                "scheduler": OneCycleLR(optimizer, [0.02, 0.005], int(self.trainer.estimated_stepping_batches)),
                "interval": "step",
            },
        }
        return [optimizer], [steps[self.hparams.schedule]()] if self.hparams.schedule else []


class Pair(LightningModule):
    """Two parts with losses of their own; one's pass leaves gradients in the other, as a generator's does."""

    rates: ClassVar[list[tuple[float, float]]] = []

    def __init__(self, order: str = "in turn", second_from: int = 0) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.order, self.second_from = order, second_from
        self.one, self.two = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.one.weight, 3.0)
        nn.init.constant_(self.two.weight, 2.0)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        one, two = self.optimizers()
        w, v = self.one.weight.sum(), self.two.weight.sum()
        self.rates.append((one.param_groups[0]["lr"], two.param_groups[0]["lr"]))
        second = self.current_epoch >= self.second_from
        if self.order == "in turn":
            one.zero_grad()
            self.manual_backward(w * w + 0.001 * v)  # 9.002; reaches `two`
            one.step()
            if second:
                two.zero_grad()
                self.manual_backward(v * v)  # 4 + 2, in two passes
                self.manual_backward(v)
                two.step()
        elif self.order == "steps last":
            one.zero_grad()
            two.zero_grad()
            self.manual_backward(v * v + v)
            self.manual_backward(w * w + 0.002)
            two.step()
            one.step()
        else:
            (w * w).backward()
            one.step()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [SGD(self.one.parameters(), lr=1e-5), SGD(self.two.parameters(), lr=2e-5)]


def test_gradient_descent_on_a_quadratic_is_suggested_a_rate_that_converges():
    Quadratic.used.clear()
    (curve,) = range_test(Task(Quadratic(), Ones(), CPU), 1e-5, 10.0, 120)
    assert curve.configured == 0.01
    assert curve.losses[0] == pytest.approx(STEEP / 2 * 4)
    assert "exploded" in curve.ended and curve.rates[-1] < 1.0
    assert curve.rates[curve.minimum] < 4 * 2 / STEEP  # beyond the limit it takes a few steps until the loss shows it
    assert 1e-3 < curve.suggestion < 2 / STEEP
    steps = Quadratic.used[-len(curve.losses) :]
    assert [rate for rate, _ in steps] == pytest.approx(list(curve.rates))
    assert all(second == pytest.approx(first / 4) for first, second in steps)  # groups keep their ratio


def test_nothing_is_changed(tmp_path):
    model, data = Quadratic(), Ones()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    range_test(Task(model, data, CPU), 1e-5, 1.0, 30)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]  # noqa: NPY002
    assert model._trainer is None and data.trainer is None and model.training
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("schedule", ["step", "plateau", "cycle"])
def test_schedulers_are_off(schedule):
    Quadratic.used.clear()
    (curve,) = range_test(Task(Quadratic(schedule=schedule), Ones(12), CPU), 1e-6, 1e-3, 20)
    assert len(curve.losses) == 20, curve.ended
    assert [rate for rate, _ in Quadratic.used[-20:]] == pytest.approx(list(curve.planned))
    assert curve.configured == (0.02 if schedule == "cycle" else 0.01)
    assert set(Quadratic.scheduled) <= {0}


def test_an_accumulated_batch_is_one_step_with_its_mean_loss():
    settings = {**CPU, "accumulate_grad_batches": 2}
    (curve,) = range_test(Task(Quadratic(), Ones(), settings), 1e-9, 1e-8, 20)
    assert len(curve.losses) == 20
    assert curve.losses == pytest.approx([STEEP / 2 * 4] * 20, rel=1e-3)


@pytest.mark.parametrize("order", ["in turn", "steps last"])
def test_each_optimizer_is_judged_by_its_own_loss_while_the_other_keeps_its_rate(order):
    Pair.rates.clear()
    one, two = range_test(Task(Pair(order), Ones(), CPU), 1e-9, 1e-8, 20)
    assert (one.network, two.network) == ("one", "two")
    assert one.losses[:2] == pytest.approx([9.002] * 2, rel=1e-3)
    assert two.losses[:2] == pytest.approx([6.0] * 2, rel=1e-3)
    first, second = Pair.rates[-40:-20], Pair.rates[-20:]
    assert {rate for _, rate in first} == {2e-5} and {rate for rate, _ in second} == {1e-5}
    assert [rate for rate, _ in first[1:]] == pytest.approx(list(one.planned)[:-1])
    assert [rate for _, rate in second[1:]] == pytest.approx(list(two.planned)[:-1])


def test_the_test_is_made_in_the_first_epoch_that_steps_all_optimizers():
    one, two = range_test(Task(Pair(second_from=3), Ones(), CPU), 1e-6, 1e-5, 20)
    assert len(one.losses) == len(two.losses) == 20


def test_an_optimizer_that_cannot_be_judged_gets_no_suggestion():
    one, two = range_test(Task(Pair(order="by hand"), Ones(), CPU), 1e-6, 1e-5, 20)
    assert "self.manual_backward" in one.problem and one.suggestion is None
    assert "not stepped" in two.problem and two.suggestion is None


def test_a_loss_that_is_not_finite_ends_the_sweep():
    (curve,) = range_test(Task(Quadratic(scale=float("inf")), Ones(), CPU), 1e-6, 1.0, 20)
    assert curve.losses == [] and curve.suggestion is None


def test_the_configured_rate_is_the_optimizers_own_argument_where_a_group_has_it():
    groups = [{"params": [nn.Parameter(torch.ones(1))], "lr": rate} for rate in (3e-4, 1e-4)]
    assert configured_rate(Adam(groups, lr=1e-4)) == 1e-4
    assert configured_rate(Adam(groups)) == 3e-4  # 1e-3, Adam's default, is nobody's


# The suggestion, from losses whose shape is known


def curve(losses: list[float], low: float = 1e-6, high: float = 1.0, planned: int = 100) -> Curve:
    return Curve("network", 1e-3, np.geomspace(low, high, planned).tolist(), losses)


def test_the_higher_of_steepest_descent_and_a_tenth_of_the_minimum_is_suggested():
    decades = np.linspace(-6, 0, 100)
    noise = 0.01 * np.random.default_rng(0).standard_normal(100)
    # Falls most at 10^-3 and is lowest at 10^-2, above which it explodes.
    fall = 2.0 - 1 / (1 + np.exp(-(decades + 3) * 6)) + np.where(decades > -2, 50 * (decades + 2), 0)
    found = curve((fall + noise).tolist())
    assert 10**-3.3 < found.rates[found.steepest] < 10**-2.7
    assert 10**-2.6 < found.rates[found.minimum] < 10**-1.8
    assert found.suggestion == pytest.approx(max(found.candidates.values()), rel=0.05)
    # Falls most at 10^-4.5, so that a tenth of the minimum is the higher one.
    early = 2.0 - 1 / (1 + np.exp(-(decades + 4.5) * 6)) - 0.05 * (decades + 6) + np.where(decades > -1.5, 50, 0)
    found = curve((early + noise).tolist())
    assert found.reason.startswith("rate of its minimum") and 10**-3.3 < found.suggestion < 10**-2.4


def test_a_lower_minimum_at_rates_where_the_loss_jumps_about_is_chance():
    decades = np.linspace(-6, 0, 100)
    valleys = [(1.0, -3), (1.1, -1)]  # depth and place
    losses = 3.0 - sum(depth * np.exp(-(((decades - place) / 0.7) ** 2)) for depth, place in valleys)
    found = curve(losses.tolist())
    assert 10**-3.1 < found.rates[found.minimum] < 10**-2.9
    early = curve((losses - 0.2 * np.exp(-(((decades + 5) / 0.4) ** 2)) + np.where(decades > -2, 9, 0)).tolist())
    assert 10**-3.3 < early.rates[early.minimum] < 10**-2.8  # and a dip before the fall is none either


def test_noise_alone_and_a_loss_that_only_rises_are_not_suggested_from():
    noise = np.random.default_rng(1).standard_normal((50, 100))
    assert sum(not curve((30 + row).tolist()).problem for row in noise) <= 2
    assert "lowest at the lowest rates" in curve(np.linspace(1, 9, 100).tolist()).problem
    assert "not clearly fall" in curve([2.0] * 100).problem
    assert curve([1.0, 0.5]).suggestion is None


# The command


def write_config(name: str, model: str, **arguments: Any) -> Path:
    lines = [f"    {key}: {value}    # of {key}" for key, value in arguments.items()]
    text = [
        f"model:\n  class_path: {__name__}.{model}",
        "  init_args:",
        *lines,
        f"data:  # ones\n  class_path: {__name__}.Ones",
    ]
    Path(name).write_text("\n".join([*text, f"  class_path: {__name__}.Ones", "trainer: {accelerator: cpu}", ""]))
    return Path(name)


def test_the_command_writes_the_image_and_the_rate_and_nothing_else(capsys):
    path = write_config("quadratic.yaml", "Quadratic", lr="1.0e-2", scale="1.0")
    text, before = path.read_text(), sorted(Path().rglob("*"))
    words = ["tune-lr", "--config", str(path), "--min", "1e-5", "--max=10", "--steps", "100", "--apply", str(path)]
    assert main([*words, "--output", "lr.png"]) == 0
    printed = capsys.readouterr().out
    written = [p for p in Path().rglob("*") if p not in before and ".cache" not in p.parts]
    assert written == [Path("lr.png")]
    assert Path("lr.png").read_bytes().startswith(b"\x89PNG")
    value = yaml.safe_load(path.read_text())["model"]["init_args"]["lr"]
    assert 1e-3 < value < 2 / STEEP
    assert path.read_text() == text.replace("1.0e-2", f"{value:.1e}".replace("e-0", "e-"))
    assert "configured: 1.0e-2" in printed and f"--model.init_args.lr {value:.1e}".replace("e-0", "e-") in printed


def test_the_command_says_so_where_there_is_nothing_to_suggest(capsys):
    path = write_config("quadratic.yaml", "Quadratic", lr="0.01")
    words = ["tune-lr", "--config", str(path), "--steps", "20"]
    assert main([*words, "--min", "1e-9", "--max", "1e-8"]) == 1  # too low to move anything
    assert "no suggestion, the loss does not clearly fall" in capsys.readouterr().out
    assert [p.name for p in Path("runs/quadratic").iterdir()] == ["lr.png"]
    for wrong, message in {
        "--apply nowhere.yaml": "no file nowhere.yaml",
        "--min 2": "--min must be",
        "--steps many": "expected int",
        "--ckpt_path x.ckpt": "tune-lr looks at a model before its first step",
    }.items():
        assert main([*words, *wrong.split()]) == 2
        assert message in capsys.readouterr().err


def test_a_gan_is_swept_and_its_two_rates_are_written(make_images, capsys):
    optimizer = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.002}}
    unet = {"class_path": "project.networks.UNet", "init_args": {"widths": [4, 6], "out_channels": 2, "in_channels": 1}}
    critic = {"in_channels": 3, "width": 4, "layers": 1}
    model = {
        "generator": unet,
        "discriminator": {"class_path": "project.networks.PatchGAN", "init_args": critic},
        "generator_optimizer": optimizer,
        "discriminator_optimizer": {**optimizer, "init_args": {"lr": 0.003}},
        "generator_scheduler": {"class_path": "project.models.WarmupCosine"},
        "generator_epochs": 1,
    }
    data = {"root": str(make_images(10)), "pairs": {"class_path": "project.data.pairs.GrayToColor"}}
    data |= {"crop": 16, "batch_size": 4, "num_workers": 0}
    tree = {"model": {"class_path": "project.models.GANColorizer", "init_args": model}, "data": data}
    Path("gan.yaml").write_text(yaml.safe_dump({**tree, "trainer": {"accelerator": "cpu", "max_steps": 5}}))
    assert main(["tune-lr", "--config", "gan.yaml", "--steps", "60", "--apply", "gan.yaml"]) in (0, 1)
    printed = capsys.readouterr().out
    assert "generator: " in printed and "configured: 2.0e-3" in printed
    assert "discriminator: " in printed and "configured: 3.0e-3" in printed
    after = yaml.safe_load(Path("gan.yaml").read_text())["model"]["init_args"]
    changed = {name: after[f"{name}_optimizer"]["init_args"]["lr"] for name in ("generator", "discriminator")}
    for name, before in {"generator": 0.002, "discriminator": 0.003}.items():
        assert (changed[name] == before) == (f"{name}: no suggestion" in printed)


# The key and the file


@pytest.mark.parametrize(
    ("arguments", "network", "value", "alone", "key"),
    [
        ({"lr": 0.1}, "network", 0.1, True, "lr"),
        ({"learning_rate": 0.1, "width": 0.1}, "network", 0.1, True, "learning_rate"),
        ({"lr": 0.1}, "network", 0.2, True, None),
        ({"optimizer": {"lr": 0.1}, "scheduler": {"max_lr": 0.3}}, "network", 0.3, True, "scheduler.max_lr"),
        ({"g_optimizer": {"lr": 0.1}, "d_optimizer": {"lr": 0.1}}, "net_d", 0.1, False, "d_optimizer.lr"),
        ({"lr_generator": 0.1, "lr_critic": 0.1}, "critic", 0.1, False, "lr_critic"),
        ({"lr": 0.1}, "critic", 0.1, False, None),  # both networks' own
    ],
)
def test_the_key_of_a_rate(arguments, network, value, alone, key):
    config = {"model": {"class_path": "x.Y", "init_args": arguments}, "data": {"lr": value}}
    assert rate_key(config, network, value, alone) == (key and f"model.init_args.{key}")


def test_only_the_number_changes_in_the_file():
    text = "# é lr: 1\r\nmodel:\r\n  init_args: {lr: 1e-3, b: 2}  # lr: 1e-3\r\ndata.lr: 5\r\n"
    Path("a.yaml").write_bytes(text.encode())
    assert write_values(Path("a.yaml"), {"model.init_args.lr": 2e-4, "data.lr": 30}) == {
        "model.init_args.lr": "1e-3",
        "data.lr": "5",
    }
    expected = text.replace("{lr: 1e-3", "{lr: 2.0e-4").replace("data.lr: 5", "data.lr: 3.0e1")
    assert Path("a.yaml").read_bytes().decode() == expected
    assert yaml.safe_load(expected)["model"]["init_args"]["lr"] == 2e-4
    with pytest.raises(UserError, match=r"model: \{init_args: \{rate: 1.0e-1\}\}"):
        write_values(Path("a.yaml"), {"data.lr": 1.0, "model.init_args.rate": 0.1})
    assert Path("a.yaml").read_bytes().decode() == expected
