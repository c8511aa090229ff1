from __future__ import annotations

import os
import statistics
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.workbench.toys import Restorer, convs, read_rows
from workbench.watch.activations import ActivationPass
from workbench.watch.probe import SAMPLES


def places(network, *shape):
    """What is seen of a pass: (name, kind, channels, normed, trained) of each non-linearity."""
    with torch.no_grad(), ActivationPass(network) as seen:
        network(torch.randn(*shape, generator=torch.Generator().manual_seed(1)))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    return [(name, p.kind, p.channels, p.normed, p.trained) for name, p in seen.places.items()]


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(4, 7), nn.LayerNorm(7), nn.Linear(7, 7)
        self.second.requires_grad_(False)

    def forward(self, x):
        h = torch.relu(self.norm(self.first(x)))
        return F.relu(self.second(h)).tanh()


def test_functions_and_modules_are_recorded_where_they_are_called():
    functions = [("0.relu", "relu", 7, True, True), ("0.relu#2", "relu", 7, False, False)]
    functions += [("0.tanh", "tanh", 7, False, False)]
    assert places(nn.Sequential(Functional()), 2, 5, 4) == functions, "channels of a Linear are the last dimension"
    twice = nn.ReLU(inplace=True)
    network = nn.Sequential(nn.Conv2d(1, 2, 1), twice, nn.Conv2d(2, 3, 1), twice)
    assert places(network, 1, 1, 3, 3) == [("1", "relu", 2, False, True), ("1#2", "relu", 3, False, True)]


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        (nn.LeakyReLU(0.2, inplace=True), "leaky_relu"),
        (nn.ReLU6(), "relu6"),
        (nn.Hardtanh(), "hardtanh"),
        (nn.PReLU(3), "prelu"),
        (nn.SiLU(), "silu"),
        (nn.GELU(), "gelu"),
        (nn.ELU(), "elu"),
        (nn.SELU(), "elu"),
        (nn.Mish(), "mish"),
        (nn.Hardswish(), "hardswish"),
        (nn.Softplus(), "softplus"),
        (nn.Sigmoid(), "sigmoid"),
    ],
)
def test_every_common_activation_is_known(module, kind):
    network = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), module)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert places(network, 2, 1, 4, 5) == [("2", kind, 3, True, True)]


def dead_by_hand(network, batch):
    """The share of channels that no pixel of no image wakes, in plain loops."""
    maps = network(batch.input)
    dead = [all(float(maps[p, c].max()) <= 0 for p in range(len(maps))) for c in range(maps.shape[1])]
    return sum(dead) / len(dead)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_dead_channels_are_counted_over_the_whole_probe(fit, precision):
    network = convs()
    with torch.no_grad():
        network[0].bias.copy_(torch.tensor([-50.0, 0, -50.0, 0, 0.5, -50.0]))
    history = fit(Restorer(network, lr=0.0), precision=precision)
    with torch.no_grad():
        expected = dead_by_hand(network[:2], fit.batch)
    assert expected == 0.5 == history.table("dead")["network.1"].last == history["dead_units/worst"].last
    # Two images in each of two batches, each more than twice as large as a training crop: middles, then corners.
    assert fit.batch.input.shape == (SAMPLES, 1, 10, 12)
    rows = (fit.folder / "measurements.csv").read_text().splitlines()
    assert rows[0] == "step,measure,layer,value" and "11,dead,network.1,0.5" in rows


def test_half_zero_is_alive_and_leaky_cannot_die(fit):
    leaky = convs(nn.LeakyReLU(0.1))
    nn.init.constant_(leaky[0].bias, -50.0)
    assert fit(Restorer(leaky, lr=0.0)).table("dead") == {}
    assert fit(Restorer(convs(seed=5), lr=0.0)).table("dead")["network.1"].last == 0


@pytest.mark.parametrize(("activation", "gain"), [(nn.Tanh(), 200.0), (nn.Sigmoid(), 400.0)])
def test_saturated_channels(fit, activation, gain):
    network = convs(activation)
    assert fit(Restorer(network, lr=0.0)).table("saturated")["network.1"].last == 0
    with torch.no_grad():
        network[0].weight.mul_(gain)
    assert fit(Restorer(network, lr=0.0)).table("saturated")["network.1"].last > 0.5


@pytest.mark.parametrize(
    ("activation", "function"), [(nn.Tanh(), np.tanh), (nn.ReLU(inplace=True), lambda x: np.maximum(x, 0))]
)
def test_both_sides_of_a_non_linearity_as_numpy_computes_them(fit, activation, function):
    network = convs(activation)
    with torch.no_grad():
        network[0].bias[:2] = 3.0
    history = fit(Restorer(network, lr=0.0))
    with torch.no_grad():
        before, output = network[0](fit.batch.input).numpy(), network(fit.batch.input).numpy()
    after = function(before)
    height, width = before.shape[2:]
    inner = before[:, :, height // 8 : height - height // 8, width // 8 : width - width // 8]
    channels = inner.transpose(1, 0, 2, 3).reshape(6, -1)
    offset = np.abs(channels.mean(1)) / channels.std(1)
    expected = {
        "before_mean": before.mean(),
        "before_std": before.std(),
        "after_mean": after.mean(),
        "after_std": after.std(),
        "off_center": (offset > 1).mean(),
        "offset": statistics.median_low(offset.tolist()),  # torch takes the lower one of the two in the middle
    }
    for measure, value in expected.items():
        assert history.table(measure)["network.1"].last == pytest.approx(float(value), rel=1e-3, abs=1e-6), measure
    assert {row["measure"] for row in read_rows(fit.folder / "measurements.csv")} >= set(expected)
    noisy, target = fit.batch.input.numpy(), fit.batch.target.numpy()
    assert history["probe/error"].last == pytest.approx(((output - target) ** 2).mean(), rel=1e-4)
    assert history["probe/nothing"].last == pytest.approx(((noisy - target) ** 2).mean(), rel=1e-4)
    assert history["probe/mean"].last == pytest.approx(target.var(), rel=1e-4)
    assert history["probe/error"].steps[0] == 0, "and before the first step, on training images"


def test_padding_does_not_hide_that_everything_is_off_center(fit):
    """Of an input far from 0, zeros around the image are by far the largest spread."""
    network = convs(nn.ReLU())
    nn.init.constant_(network[0].weight, 0.15)
    nn.init.zeros_(network[0].bias)
    model = Restorer(network, lr=0.0)
    model.forward = lambda x: network(x + 100)
    assert fit(model).table("offset")["network.1"].last > 50


def test_measuring_changes_neither_random_numbers_nor_statistics_nor_modes(fit):
    def trained(**options):
        torch.manual_seed(11)
        network = nn.Sequential(*convs(nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout2d(0.3)), nn.BatchNorm2d(1))
        network[-1].eval()
        fit(Restorer(network, lr=0.1), **options)
        return network

    plain, watched = trained(every_n_steps=0, every_n_validations=0), trained()
    for name, value in plain.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name
    assert [m.training for m in watched.modules()] == [m.training for m in plain.modules()]


def test_a_model_that_cannot_be_called_is_trained_without_a_probe(fit):
    model = Restorer(convs())
    model.forward = lambda x: (_ for _ in ()).throw(NotImplementedError("no forward"))
    model.training_step = lambda batch, batch_idx: model.network(batch.input).square().mean()
    model.validation_step = lambda batch, batch_idx: None
    with pytest.warns(UserWarning, match="cannot measure activations"):
        history = fit(model)
    assert history.table("dead") == {} and history.table("gradient")


def test_a_compiled_network_is_measured_uncompiled(fit):
    network = convs()
    nn.init.constant_(network[0].bias, -50.0)
    compiled = torch.compile(network, backend="eager")
    model = Restorer(network, lr=0.0)
    model.forward = lambda x: compiled(x)
    assert [series.last for series in fit(model).table("dead").values()] == [1.0]


def test_histograms_reach_tensorboard(fit):
    board = pytest.importorskip("lightning.pytorch.loggers").TensorBoardLogger(fit.folder, name="", version="tb")
    fit(Restorer(convs()), logger=board)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(fit.folder / "tb")).Reload()
    assert {"before/network.1", "after/network.1", "weights/network.0.weight"} <= set(events.Tags()["histograms"])
    shown = events.Histograms("after/network.1")[-1].histogram_value
    assert shown.min == 0 and sum(shown.bucket) == shown.num > 1000


def _alive_on_one_rank_only(rank: int, folder: str) -> None:
    """One process of two: each sees other images; a channel that only the other one wakes is alive."""
    import torch.distributed as dist
    from lightning.pytorch.strategies import DDPStrategy

    os.environ.update(MASTER_ADDR="127.0.0.1", GLOO_SOCKET_IFNAME="lo")
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    kept = {}

    def put(names, values, step, table=None, log=False):
        kept.update(zip(names, values.reshape(-1).tolist(), strict=True))

    trainer = SimpleNamespace(world_size=2, strategy=DDPStrategy(), is_global_zero=rank == 0)
    maps = torch.zeros(2, 4, 3, 3)
    maps[:, 0] = 1.0
    maps[:, 1 + rank] = 2.0
    with ActivationPass(network := nn.Sequential(nn.ReLU())) as seen:
        network(maps)
    seen.put(SimpleNamespace(put=put, trainer=trainer), 0)
    dist.destroy_process_group()
    assert rank != 0 or kept["dead_units/worst"] == 0.25, kept


@pytest.mark.slow
def test_dead_means_dead_on_every_process(tmp_path):
    torch.multiprocessing.spawn(_alive_on_one_rank_only, (str(tmp_path),), nprocs=2)
