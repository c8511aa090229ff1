"""Which of the two networks trains in an epoch: the generator alone, the critic alone, then both."""

from __future__ import annotations

from typing import NamedTuple


class Stage(NamedTuple):
    """Who trains.

    Attributes:
        generator: Whether the generator does.
        discriminator: Whether the discriminator does, and with it whether it has a say in the generator's loss.
    """

    generator: bool
    discriminator: bool


def stage_of(epoch: int, generator_epochs: int, critic_epochs: int) -> Stage:
    """The stage of an epoch, as DeOldify trains: first the generator, then the critic of its answers, then both.

    Args:
        epoch: Of the run, from 0.
        generator_epochs: Epochs of the generator alone, at the start.
        critic_epochs: Epochs of the discriminator alone, after those.
    """
    return Stage(
        generator=not generator_epochs <= epoch < generator_epochs + critic_epochs,
        discriminator=epoch >= generator_epochs,
    )
