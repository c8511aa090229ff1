"""Whether data, generator and discriminator fit each other; told before the first step."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from project.models.adversarial import WassersteinGP
from project.networks.normalize import Normalize
from project.networks.space import Space
from workbench.errors import UserError


def check_settings(model: Any) -> None:
    """Whether the numbers of a GANColorizer are possible, and its parts go together.

    Raises:
        UserError: When not; all faults are told at once.
    """
    discriminator = model.discriminator
    least = {"generator_steps": 1, "generator_epochs": 0, "critic_epochs": 0, "adversarial_weight": 0}
    least |= {"reconstruction_weight": 0, "feature_matching_weight": 0, "perceptual_weight": 0}
    faults = [
        f"{name} must be at least {bound}, not {getattr(model, name)}"
        for name, bound in least.items()
        if getattr(model, name) < bound
    ]
    if discriminator is None:
        asked = [name for name in ("critic_epochs", "feature_matching_weight") if getattr(model, name) > 0]
        faults += [f"{name} is {getattr(model, name)}, but there is no discriminator" for name in asked]
    elif model.feature_matching_weight > 0 and not hasattr(discriminator, "features"):
        name = type(discriminator).__name__
        faults.append(f"feature_matching_weight wants a discriminator with features(x), such as PatchGAN, not {name}")
    if isinstance(model.adversarial, WassersteinGP) and _has_batch_norm(discriminator):
        faults.append(
            "WassersteinGP holds each image's own gradient to length 1, and a batch norm mixes the images: set "
            "norm: instance (or layer, group, none) in the discriminator's init_args"
        )
    if faults:
        raise UserError("\n".join(["GANColorizer cannot be built:", *(f"- {fault}" for fault in faults)]))


def check_space(space: Space, pairs: Any) -> None:
    """Whether the input carries the lightness that the space copies.

    Args:
        space: The model's.
        pairs: The data's pair maker; one that gives L / 100 as the first channel has ``keeps_lightness``.

    Raises:
        UserError: When it does not.
    """
    if pairs is None or not space.keeps_lightness or getattr(pairs, "keeps_lightness", False):
        return
    raise UserError(
        f"model.space lab copies the lightness from the input, and data.pairs {type(pairs).__name__} gives none.\n"
        "Set model.init_args.space: rgb, and out_channels: 3 in the generator's init_args,\n"
        "or data.pairs.class_path: project.data.pairs.GrayToColor for grayscale photographs."
    )


def check_channels(
    space: Space, generator: nn.Module, discriminator: nn.Module | None, statistics: dict[str, Any], pairs: Any
) -> None:
    """Whether the networks have as many channels as the data and the space.

    Args:
        space: The model's.
        generator: Looked at where it has ``in_channels`` and ``out_channels``, or a normalization of its own.
        discriminator: Likewise.
        statistics: The data's ``normalization``, one value a channel.
        pairs: The data's pair maker, which knows how many of the channels are hints.

    Raises:
        UserError: When one has not; tells each key and the number to set.
    """
    given, target = len(statistics["input"][0]), len(statistics["target"][0])
    if target != 3:
        raise UserError(
            f"GANColorizer gives color images, but the target images have {target} channel(s): data.channels is "
            f"{target}.\nSet data.channels: 3."
        )
    answered = space.channels
    wanted = {
        ("generator", "in_channels"): (channels_of(generator, "in"), given),
        ("generator", "out_channels"): (channels_of(generator, "out"), answered),
        ("discriminator", "in_channels"): (channels_of(discriminator, "in"), given + answered),
    }
    faults = [
        f"- model.init_args.{network}.init_args.{key} is {has}: set {key}: {want}"
        for (network, key), (has, want) in wanted.items()
        if has is not None and has != want
    ]
    if faults:
        hints = getattr(getattr(pairs, "hints", None), "channels", 0)
        made_of = f" ({given - hints} of the image, {hints} of the hints)" if hints else ""
        name = type(space).__name__.lower()
        start = f"The input has {given} channels{made_of} and space {name} {answered}; the networks have others:"
        raise UserError("\n".join([start, *faults, "The discriminator sees the input and the answer together."]))


def check_size(discriminator: nn.Module | None, data: Any, generator_epochs: int) -> None:
    """Whether the training crops are as large as the discriminator needs; whole images show it by themselves.

    Args:
        discriminator: Looked at where it has a ``check_size``.
        data: Its ``crop``, and its ``half_size_epochs``, after which crops are no longer at half their size.
        generator_epochs: Before these are over the discriminator sees nothing.

    Raises:
        UserError: What the discriminator's ``check_size`` raises.
    """
    crop = getattr(data, "crop", None)
    if crop is not None and hasattr(discriminator, "check_size"):
        side = -(-crop // 2) if getattr(data, "half_size_epochs", 0) > generator_epochs else crop
        discriminator.check_size(side, side)


def _has_batch_norm(network: nn.Module | None) -> bool:
    return network is not None and any(isinstance(part, _BatchNorm) for part in network.modules())


def channels_of(network: nn.Module | None, side: str) -> int | None:
    """How many channels the network takes ("in") or gives ("out"), where it says so."""
    if network is None:
        return None
    own = getattr(network, f"{side}_channels", None)
    part = getattr(network, f"normalize_{side}put", None)
    return own if own is not None else part.mean.numel() if isinstance(part, Normalize) else None
