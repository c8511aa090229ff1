"""What does not fit is told before the first step, with the key and the number to set."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from project.models import GANColorizer, WassersteinGP
from project.networks import Normalized, PatchGAN, UNet
from workbench.errors import UserError


def colorizer(takes=5, gives=3, sees=8, space="rgb", **options):
    generator = UNet(in_channels=takes, out_channels=gives, width=4, depth=1, norm="none")
    return GANColorizer(generator, PatchGAN(sees, width=4, layers=2), space, metrics={}, **options)


def refusal(make_trainer, model, data):
    with pytest.raises(UserError) as told:
        make_trainer(max_steps=1, limit_val_batches=0).fit(model, data)
    assert len(str(told.value).splitlines()) <= 10
    return str(told.value)


def test_lab_wants_pairs_that_keep_the_lightness(make_trainer, color_data):
    color_data.pairs = SimpleNamespace(keeps_lightness=False, hints=SimpleNamespace(channels=4))
    message = refusal(make_trainer, colorizer(gives=2, sees=7, space="lab"), color_data)
    assert "model.init_args.space: rgb" in message and "data.pairs" in message
    make_trainer(max_steps=1, limit_val_batches=0).fit(colorizer(), color_data)
    del color_data.pairs.keeps_lightness
    assert "GrayToColor" in refusal(make_trainer, colorizer(gives=2, sees=7, space="lab"), color_data)


def test_lab_is_refused_in_a_test_as_well(make_trainer, color_data):
    color_data.pairs = SimpleNamespace()
    with pytest.raises(UserError, match="space lab"):
        make_trainer().test(colorizer(gives=2, sees=7, space="lab"), color_data, verbose=False)


def test_all_channels_that_do_not_fit_are_told_with_what_they_should_be(make_trainer, color_data):
    message = refusal(make_trainer, colorizer(takes=1, gives=3, sees=4, space="lab"), color_data)
    assert "The input has 5 channels (1 of the image, 4 of the hints) and space lab 2" in message
    assert "model.init_args.generator.init_args.in_channels is 1: set in_channels: 5" in message
    assert "model.init_args.generator.init_args.out_channels is 3: set out_channels: 2" in message
    assert "model.init_args.discriminator.init_args.in_channels is 4: set in_channels: 7" in message
    message = refusal(make_trainer, colorizer(sees=3), color_data)
    assert "set in_channels: 8" in message and "generator" not in message.replace("discriminator", "")


def test_a_network_without_the_names_is_known_by_its_normalization(make_trainer, color_data):
    network = Normalized(nn.Conv2d(4, 3, 1), in_channels=4)
    model = GANColorizer(network, None, "rgb", metrics={})
    assert "generator.init_args.in_channels is 4: set in_channels: 5" in refusal(make_trainer, model, color_data)
    make_trainer(max_steps=1, limit_val_batches=0).fit(
        GANColorizer(nn.Conv2d(5, 3, 1), None, "rgb", metrics={}), color_data
    )


def test_gray_targets_are_told(make_trainer, color_data):
    color_data.normalization["target"] = ([0.5], [0.5])
    assert "data.channels: 3" in refusal(make_trainer, colorizer(), color_data)


def test_a_discriminator_too_deep_for_the_crop_is_told(make_trainer, color_data):
    color_data.crop = 11
    message = refusal(make_trainer, colorizer(), color_data)
    assert "layers: 2 needs 12 pixels a side, and they are 11 x 11" in message
    assert "Set layers: 1 " in message and "data.crop: 12" in message
    color_data.crop, color_data.half_size_epochs = 22, 1
    assert "they are 11 x 11" in refusal(make_trainer, colorizer(), color_data)
    color_data.crop = None
    make_trainer(max_steps=1, limit_val_batches=0).fit(colorizer(), color_data)  # whole images are 13 x 22


def test_both_networks_get_the_statistics(make_trainer, color_data):
    model = colorizer(gives=2, sees=7, space="lab")
    make_trainer(max_steps=1, limit_val_batches=0).fit(model, color_data)
    mean, std = color_data.normalization["input"]
    networks = (model.generator.normalize_input, model.generator.normalize_output, model.discriminator.normalize_input)
    means, stds = ([getattr(part, name).flatten().tolist() for part in networks] for name in ("mean", "std"))
    assert means == [pytest.approx(v) for v in (mean, [0, 0], [*mean, 0, 0])]
    assert stds == [pytest.approx(v) for v in (std, [0.15, 0.15], [*std, 0.15, 0.15])]


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"generator_steps": 0}, "generator_steps must be at least 1"),
        ({"generator_epochs": -1}, "generator_epochs must be at least 0"),
        ({"reconstruction_weight": -1.0}, "reconstruction_weight must be at least 0"),
        ({"space": "lba"}, "Did you mean 'lab'"),
        ({"schedule_every": "stp"}, "schedule_every"),
        ({"adversarial": WassersteinGP()}, "norm: instance"),
    ],
)
def test_faulty_options_are_told(options, key):
    with pytest.raises(UserError, match=key):
        colorizer(**options)


def test_what_wants_a_discriminator_is_told_all_at_once():
    with pytest.raises(UserError) as told:
        GANColorizer(nn.Conv2d(5, 3, 1), None, "rgb", metrics={}, critic_epochs=1, feature_matching_weight=1.0)
    assert "critic_epochs is 1" in str(told.value) and "feature_matching_weight is 1.0" in str(told.value)
    with pytest.raises(UserError, match=r"features\(x\), such as PatchGAN, not Conv2d"):
        GANColorizer(nn.Conv2d(5, 3, 1), nn.Conv2d(8, 1, 3), "rgb", metrics={}, feature_matching_weight=1.0)


def test_a_batch_norm_is_fine_where_no_penalty_is_taken():
    assert isinstance(colorizer().discriminator, nn.Module)
    critic = PatchGAN(8, width=4, layers=2, norm="layer")
    GANColorizer(nn.Conv2d(5, 3, 1), critic, "rgb", WassersteinGP(), metrics={})


def test_pictures_that_are_too_small_are_told_where_no_crop_says_their_size(make_trainer, color_data):
    color_data.crop = None
    color_data.batches = [
        b._replace(input=b.input[..., :9, :], target=b.target[..., :9, :]) for b in color_data.batches
    ]
    assert "needs 12 pixels a side, and they are 22 x 9" in refusal(make_trainer, colorizer(), color_data)
    assert torch.isfinite(colorizer().restore(color_data.batches[0].input)).all()
