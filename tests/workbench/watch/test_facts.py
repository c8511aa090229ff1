from __future__ import annotations

from types import SimpleNamespace

import lightning as L
import torch
from torch import nn

from project.models import ImageRestorer
from project.networks import UNet
from workbench.watch.facts import PENALTY, gather


def _trainer(*optimizers):
    return SimpleNamespace(optimizers=list(optimizers), datamodule=None, ckpt_path=None)


def test_a_restorer_s_tensors_and_keys():
    network = UNet(widths=[4, 8], norm="batch")
    network.head.requires_grad_(False)
    model = ImageRestorer(network, l2=1e-4)
    model.perceptual = nn.Conv2d(3, 4, 3)
    model.backbone = nn.Conv2d(3, 4, 3).eval()
    held = [p for n, p in network.named_parameters() if "tail" not in n and p.requires_grad]
    facts = gather(_trainer(torch.optim.AdamW(held, lr=3e-4, weight_decay=0.1)), model)
    parameters = facts.parameters
    assert "network.head.weight" not in parameters
    body = parameters["network.encoder.0.0.body.0.weight"]
    assert (body.network, body.role, body.fan_in, body.optimizer, body.helper) == ("network", "weight", 36, 0, False)
    assert parameters["network.up.0.weight"].fan_in == 8, "each output pixel sees one tap of a 2x2 kernel of stride 2"
    assert parameters["network.encoder.0.0.body.1.bias"].role == "gain"
    assert parameters["network.up.0.bias"].role == "bias"
    assert parameters["network.tail.weight"].optimizer is None
    assert parameters["perceptual.weight"].helper and parameters["backbone.weight"].helper
    assert facts.networks() == ["network"]
    assert facts.lower_rate("network") == "--model.init_args.optimizer.init_args.lr 3e-05"
    assert facts.weight_decay["network"].value == 0.1 and facts.decoupled == {"network"}
    assert facts.penalties["train/l2_penalty"].key == "model.init_args.l2"
    assert facts.higher_is_better == {"psnr": True, "ssim": True}
    assert facts.clipping.key == "gradient_clipping.norm" and not facts.adversarial


def test_a_game_is_known_by_its_networks():
    class Model(L.LightningModule):
        def __init__(self, generator_optimizer=None, discriminator_optimizer=None):
            super().__init__()
            self.automatic_optimization = False
            self.generator, self.discriminator = nn.Linear(2, 2), nn.Linear(2, 1)
            self.adversarial_weight = 2.0

    model = Model()
    optimizers = [torch.optim.Adam(part.parameters(), lr=2e-4) for part in (model.generator, model.discriminator)]
    facts = gather(_trainer(*optimizers), model)
    assert facts.adversarial and facts.discriminators == {"discriminator"}
    assert facts.learning_rate["discriminator"].key == "model.init_args.discriminator_optimizer.init_args.lr"
    assert facts.losses["adversarial"].set(0.5) == "--model.init_args.adversarial_weight 0.5"
    assert facts.clipping.key == "gradient_clipping.norm"


def test_penalties_are_known_by_their_names():
    for name in ("train/l1_penalty", "train/weight_decay", "train/kernel_regularization"):
        assert PENALTY.search(name)
    for name in ("train/gradient_penalty", "train/loss", "val/l1_penalty"):
        assert not PENALTY.search(name)
