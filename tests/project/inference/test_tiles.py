"""Tiles: an exact partition, no seams, bounded memory."""

import pytest
import torch
from torch import nn

from project.inference.tiles import choose_device, spans, tiled_bands
from workbench.errors import UserError

SIZES = [(1, 1), (7, 131), (64, 64), (65, 63), (97, 160), (31, 1000)]


def image_of(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def tiled(function, image: torch.Tensor, **options) -> torch.Tensor:
    return torch.cat([band for _, band in tiled_bands(function, image, **options)], dim=2)


class Strided(nn.Module):
    """Two strided convolutions and back; a pixel of its output depends on the input at most 10 pixels away."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 5, 4, stride=4)
        self.middle = nn.Conv2d(5, 5, 3, padding=1)
        self.up = nn.ConvTranspose2d(5, 2, 4, stride=4)

    def forward(self, x):
        height, width = x.shape[-2:]
        padded = nn.functional.pad(x, (0, -width % 4, 0, -height % 4), mode="replicate")
        return self.up(torch.relu(self.middle(self.down(padded))))[..., :height, :width]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("tile", "overlap"), [(64, 16), (64, 1), (64, 56), (50, 5), (32, 8), (0, 16), (512, 64)])
def test_the_identity_comes_back(size, tile, overlap):
    image = image_of(1, 3, *size)
    result = tiled(lambda x: x, image, tile=tile, overlap=overlap, align=8)
    torch.testing.assert_close(result, image, atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", SIZES[1:])
def test_a_receptive_field_within_the_margin_gives_the_output_on_the_whole_image(size):
    network, image = Strided().eval(), image_of(1, 3, *size)
    with torch.no_grad():
        whole = network(image)
    result = tiled(network, image, tile=64, overlap=32, align=16)  # a margin of 12 pixels
    torch.testing.assert_close(result, whole, atol=1e-5, rtol=0)


def test_a_larger_receptive_field_differs_by_less_than_hard_edges_would():
    network = nn.Sequential(*[nn.Conv2d(1, 1, 9, padding=4, bias=False) for _ in range(4)])
    for layer in network:
        nn.init.constant_(layer.weight, 1 / 81)
    image = image_of(1, 1, 150, 190)
    with torch.no_grad():
        whole = network(image)
    soft, hard = (
        (tiled(network, image, tile=64, overlap=overlap, align=16) - whole).abs().max() for overlap in (32, 0)
    )
    assert soft < hard / 20


def test_bands_follow_each_other_and_hold_a_row_of_tiles_at_most():
    shapes = []

    def record(x):
        shapes.append(tuple(x.shape))
        return x[:, :1]

    image, expected = image_of(1, 3, 300, 200), 0
    for top, band in tiled_bands(record, image, tile=64, overlap=16, align=16):
        assert top == expected
        assert band.shape[2] <= 64
        torch.testing.assert_close(band, image[:, :1, top : top + band.shape[2]], atol=1e-6, rtol=0)
        expected += band.shape[2]
    assert expected == 300
    assert all(shape[2] <= 64 and shape[3] <= 64 for shape in shapes)


def test_impossible_overlaps_sizes_and_devices_are_refused(monkeypatch):
    for overlap in (-1, 49, 64):
        with pytest.raises(ValueError, match="cannot overlap"):
            spans(200, 64, overlap, align=16)
    with pytest.raises(ValueError, match="40x30 pixels into 20x15"):
        tiled(lambda x: x[..., ::2, ::2], image_of(1, 1, 40, 30))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(UserError, match="--device cuda"):
        choose_device("cuda")
