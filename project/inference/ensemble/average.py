"""Several answers as one, and how far they are apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from project.networks.space import RGB, Space
from workbench.errors import choose

WAYS = ("plain", "score", "agreement")
CLOSE = 2 / 255
"""Answers that are no further than this from the median of all count alike, for the weights by agreement."""


class Ensemble(nn.Module):
    """Members that answer together.

    Answers are averaged in what the networks give: images, or a and b of CIELAB (over 110) where all members keep the
    input's lightness: the lightness is then that of the input. Where some do and some do not, images are averaged.

    Args:
        members: Each takes (B, C, H, W) and gives images (B, c, H, W) around [0, 1].
        way: plain: the mean. score: weighted by ``scores``. agreement: at each pixel weighted by how close a member is
            to the median of all.
        scores: PSNR in dB of each member, for ``score``.
        turns: Ask every member in all eight positions of the image, turned and mirrored.

    Raises:
        UserError: For an unknown way.
    """

    def __init__(
        self,
        members: Sequence[nn.Module],
        way: str = "plain",
        scores: Sequence[float] | None = None,
        turns: bool = False,
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        spaces = [_space(member) for member in members]
        self.space = spaces[0] if len({type(space) for space in spaces}) == 1 else None
        self.way = choose("--average", way, WAYS)
        weights = score_weights(scores) if self.way == "score" and scores else torch.ones(len(members)) / len(members)
        self.register_buffer("weights", weights)
        self.turns = turns

    def answers(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> every answer on its own, (members, or members x 8, B, c, H, W): see :meth:`images`."""
        return torch.cat([self._of(member, x) for member in self.members])

    def _of(self, member: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        if not self.turns:
            return self._ask(member, x)[None]
        return torch.stack([turn_back(self._ask(member, turn(x, position)), position) for position in range(8)])

    def _ask(self, member: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        if self.space is None:
            return member(x).float().clamp(0, 1)
        return member.generator(member.to_memory_format(x)).float()

    def pictures(self, answers: Tensor, x: Tensor) -> Tensor:
        """What :meth:`answers` gave for x -> images, (answers, B, c, H, W) in [0, 1]."""
        if self.space is None:
            return answers
        return torch.stack([self.space.decode(answer, x) for answer in answers]).clamp(0, 1)

    def combine(self, answers: Tensor, x: Tensor) -> Tensor:
        """What :meth:`answers` gave for x -> one image of them, (B, c, H, W) in [0, 1]."""
        if self.way == "agreement":
            together = by_agreement(answers)
        else:
            weights = self.weights.repeat_interleave(len(answers) // len(self.weights))
            together = torch.tensordot(weights / weights.sum(), answers, dims=1)
        return self.pictures(together[None], x)[0]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, c, H, W) in [0, 1]."""
        return self.combine(self.answers(x), x)


def _space(member: nn.Module) -> Space | None:
    """In which colors a member's network answers, where these are not an image's."""
    space = getattr(member, "space", None)
    return None if isinstance(space, RGB) or not hasattr(member, "generator") else space


def disagreement(answers: Tensor) -> Tensor:
    """(answers, B, c, H, W) -> (B, 1, H, W): the standard deviation of images, root mean square over channels."""
    return answers.var(dim=0, correction=0).mean(dim=1, keepdim=True).sqrt()


def by_agreement(answers: Tensor) -> Tensor:
    """(answers, B, c, H, W) -> (B, c, H, W): at each pixel, the closer to the median, the more an answer counts."""
    median = answers.quantile(0.5, dim=0)
    apart = (answers - median).square().mean(dim=2, keepdim=True)
    weights = 1 / (apart + CLOSE**2)
    return (weights * answers).sum(dim=0) / weights.sum(dim=0)


def score_weights(scores: Sequence[float]) -> Tensor:
    """PSNR in dB -> weights that sum to 1: the inverse of each mean squared error, best for unrelated errors."""
    return torch.softmax(torch.tensor(scores) * (torch.tensor(10.0).log() / 10), dim=0)


def turn(x: Tensor, position: int) -> Tensor:
    """One of the eight positions of an image: quarter turns (0 to 3), and the same mirrored (4 to 7)."""
    x = x.flip(-1) if position >= 4 else x
    return torch.rot90(x, position % 4, (-2, -1))


def turn_back(x: Tensor, position: int) -> Tensor:
    """Undo :func:`turn`."""
    x = torch.rot90(x, -(position % 4), (-2, -1))
    return x.flip(-1) if position >= 4 else x
