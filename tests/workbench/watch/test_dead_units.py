from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from workbench.watch.dead_units import DeadUnits
from workbench.watch.probe import PICTURES


class Keep(Callback):
    """The images of the probe, and the weights at the time of the last look."""

    def __init__(self, monitor):
        self.monitor = monitor

    def on_validation_end(self, trainer, pl_module):
        self.probe = self.monitor.probe
        self.batch = self.probe.batch
        self.weights = {name: value.clone() for name, value in pl_module.state_dict().items()}


def by_hand(network, batch):
    """The share of channels that no pixel of no image wakes, in plain loops."""
    dead = 0
    maps = network(batch.input)
    for channel in range(maps.shape[1]):
        dead += all(float(maps[p, channel].max()) <= 0 for p in range(len(maps)))
    return dead / maps.shape[1]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_dead_channels_are_counted_over_the_whole_probe(fit, make_restorer, convs, precision):
    network = convs()
    with torch.no_grad():
        network[0].bias.copy_(torch.tensor([-50.0, 0, -50.0, 0, 0.5, -50.0]))
    monitor = DeadUnits()
    keep = Keep(monitor)
    history = fit(make_restorer(network, lr=0.0), monitor, keep, precision=precision)
    with torch.no_grad():
        expected = by_hand(network[:2], keep.batch)
    assert expected == 0.5
    assert history.table("dead")["network.1"].last == pytest.approx(expected)
    assert history["dead_units/worst"].last == pytest.approx(expected)
    # Two images in each of two batches, each more than twice as large as a training crop: middles, then corners.
    assert keep.batch.input.shape == (PICTURES, 1, 10, 12)
    rows = (fit.folder / "measurements.csv").read_text().splitlines()
    assert rows[0] == "step,measure,layer,value" and "11,dead,network.1,0.5" in rows


def test_half_zero_is_alive_and_leaky_cannot_die(fit, make_restorer, convs):
    network = convs(nn.LeakyReLU(0.1))
    with torch.no_grad():
        network[0].bias.fill_(-50.0)
    assert fit(make_restorer(network, lr=0.0), DeadUnits()).table("dead") == {}
    history = fit(make_restorer(convs(seed=5), lr=0.0), DeadUnits())
    assert history.table("dead")["network.1"].last == 0


def test_frozen_layers_are_counted_and_marked(fit, make_restorer, convs):
    network = convs()
    network[0].requires_grad_(False)
    with torch.no_grad():
        network[0].bias.fill_(-50.0)
    history = fit(make_restorer(network), DeadUnits())
    assert history.table("dead")["network.1"].last == 1
    assert not history.facts.activations["network.1"].trained


@pytest.mark.parametrize(("activation", "gain"), [(nn.Tanh(), 200.0), (nn.Sigmoid(), 400.0)])
def test_saturated_channels(fit, make_restorer, convs, activation, gain):
    network = convs(activation)
    assert fit(make_restorer(network, lr=0.0), DeadUnits()).table("saturated")["network.1"].last == 0
    with torch.no_grad():
        network[0].weight.mul_(gain)
    assert fit(make_restorer(network, lr=0.0), DeadUnits()).table("saturated")["network.1"].last > 0.5


def test_looking_changes_nothing_in_the_training(fit, make_restorer, convs):
    """Neither the random numbers (dropout), nor a norm's statistics, nor the modes of frozen parts."""

    def end(*callbacks):
        torch.manual_seed(11)
        network = nn.Sequential(*convs(nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout2d(0.3)), nn.BatchNorm2d(1))
        network[-1].eval()
        fit(make_restorer(network, lr=0.1), *callbacks)
        return network

    plain, watched = end(), end(DeadUnits())
    for name, value in plain.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name
    assert [m.training for m in watched.modules()] == [m.training for m in plain.modules()]


def test_a_model_that_cannot_be_called_goes_on_without(fit, make_restorer, convs):
    model = make_restorer(convs())
    model.forward = lambda x: (_ for _ in ()).throw(NotImplementedError("no forward"))
    model.training_step = lambda batch, batch_idx: model.network(batch.input).square().mean()
    model.validation_step = lambda batch, batch_idx: None
    with pytest.warns(UserWarning, match="cannot look into this model"):
        history = fit(model, DeadUnits())
    assert history.table("dead") == {}


def test_it_can_be_switched_off(fit, make_restorer, convs):
    assert fit(make_restorer(convs()), DeadUnits(0)).tables == {}


def test_a_compiled_network_is_looked_at_uncompiled(fit, make_restorer, convs):
    network = convs()
    with torch.no_grad():
        network[0].bias.fill_(-50.0)
    compiled = torch.compile(network, backend="eager")
    model = make_restorer(network, lr=0.0)
    model.forward = lambda x: compiled(x)
    history = fit(model, DeadUnits())
    assert [series.last for series in history.table("dead").values()] == [1.0]


def _alive_on_one_rank_only(rank: int, folder: str) -> None:
    """One process of two: each sees other images; a channel that only the other one wakes is alive."""
    import os
    from types import SimpleNamespace

    import torch.distributed as dist
    from lightning.pytorch.strategies import DDPStrategy

    from workbench.watch.taps import Seen

    os.environ.update(MASTER_ADDR="127.0.0.1", GLOO_SOCKET_IFNAME="lo")
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    monitor, kept = DeadUnits(), {}
    maps = torch.zeros(2, 4, 3, 3)
    maps[:, 0] = 1.0
    maps[:, 1 + rank] = 2.0
    monitor.hear(Seen("act", "relu", maps, maps, 1, False, True))

    def put(names, values, step, table=None, log=False):
        kept.update(zip(names, values.reshape(-1).tolist(), strict=True))

    monitor.recorder = SimpleNamespace(put=put)
    strategy = DDPStrategy()
    trainer = SimpleNamespace(world_size=2, strategy=strategy, is_global_zero=rank == 0)
    monitor.finish(trainer, None, SimpleNamespace(step=0), None)
    dist.destroy_process_group()
    if rank == 0:
        assert kept["act"] == 0.25, kept


@pytest.mark.slow
def test_dead_means_dead_on_every_process(tmp_path):
    torch.multiprocessing.spawn(_alive_on_one_rank_only, (str(tmp_path),), nprocs=2)
