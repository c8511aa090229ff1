"""Faults of image files and pairs: broken, doubled, leaking, odd, misaligned, gray; statistics from elsewhere."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from PIL import Image
from torch.nn import functional as F

from project.data.checks import statistics_not_from_train
from project.data.pairs import GaussianNoise, GrayToColor, PairedInput, SaltAndPepper
from project.data.statistics import Statistics
from project.networks import BackboneUNet, Normalized, UNet
from workbench.findings.engine import Passed, Skipped


@pytest.mark.planted("unreadable-image")
@pytest.mark.parametrize("how", ["cut", "empty", "text"])
@pytest.mark.filterwarnings("ignore:Left out")
def test_a_file_that_cannot_be_used(look, kit, make_scenes, how):
    root = make_scenes(16)
    path = root / "004.png"
    path.write_bytes({"cut": path.read_bytes()[:200], "empty": b"", "text": b"this is no image"}[how])
    found = look(root=str(root))
    assert found.faults == ["unreadable-image"]
    assert "004.png" in found.of("unreadable-image").where
    assert "unreadable-image" in look(root=str(root), on_bad_image="skip").notes


COPY = {
    "bytes": lambda source, to: shutil.copy(source, to.with_suffix(".png")),
    "jpeg": lambda source, to: Image.open(source).save(to.with_suffix(".jpg"), quality=80),
    "resized": lambda source, to: Image.open(source).resize((78, 61), Image.BICUBIC).save(to.with_suffix(".png")),
}


@pytest.mark.planted
@pytest.mark.parametrize("copy", COPY.values(), ids=COPY)
@pytest.mark.parametrize("code", ["duplicate-images", "split-leak"])
@pytest.mark.filterwarnings("ignore:1 images lie byte for byte")
def test_images_that_are_there_twice(look, make_scenes, copy, code):
    root = make_scenes(24, "all/train")
    val = make_scenes(6, "all/val", start=100)
    make_scenes(6, "all/test", start=200)
    if code == "split-leak":
        copy(root / "003.png", val / "seen")
    else:
        for number in range(6):
            copy(root / f"{number:03d}.png", root / f"copy{number}")
    found = look(root=str(root.parent))
    assert found.faults == [code]
    where = found.of(code).where
    assert "003.png" in where and ("seen" if code == "split-leak" else "copy3") in where


@pytest.mark.planted("outlier-images")
@pytest.mark.parametrize("how", ["black", "white", "blurred", "wide"])
def test_odd_images(look, kit, make_scenes, how):
    root = make_scenes(30)
    image = kit.scene(77).astype(float)
    coarse = Image.fromarray(kit.scene(77)).resize((3, 2), Image.Resampling.BOX)
    odd = {
        "black": image * 0.02,
        "white": 255 - (255 - image) * 0.02,
        "blurred": np.asarray(coarse.resize((52, 41), Image.Resampling.BICUBIC)),
        "wide": np.tile(image, (1, 14, 1)),
    }[how]
    Image.fromarray(np.uint8(odd)).save(root / "odd.png")
    found = look(root=str(root))
    assert found.faults == []
    outlier = found.of("outlier-images")
    assert outlier.severity == "note" and "odd.png" in outlier.where and "," not in outlier.where


@pytest.mark.planted("input-constant")
def test_blank_images(look, kit, make_scenes):
    root = make_scenes(20)
    Image.new("RGB", (52, 41), "white").save(root / "blank.png")
    Image.new("RGB", (52, 41), (3, 90, 20)).save(root / "green.png")
    assert look(root=str(root)).faults == ["input-constant"]
    make_scenes(60)
    assert "input-constant" in look(root=str(root)).notes


def test_statistics_of_other_images(kit, make_data):
    context = kit.context_of(kit.restorer(), make_data())
    own = context.data.statistics
    assert statistics_not_from_train(context).value < 1e-6
    for mean, std in ((own.mean + 0.01, own.std), (own.mean, own.std * 1.1)):
        context.data.statistics = Statistics(mean, std, own.pixels)
        finding = statistics_not_from_train(context)
        assert finding.is_fault and finding.limit == pytest.approx(0.003)


@pytest.mark.planted("statistics-not-from-train")
def test_statistics_of_all_splits(kit, make_data, make_scenes):
    train = make_scenes(12, "all/train")
    bright = make_scenes(4, "all/val", start=50)
    make_scenes(4, "all/test", start=60)
    for path in bright.iterdir():
        Image.open(path).point(lambda value: 155 + value * 0.4).save(path)
    everything = [np.asarray(Image.open(path)) for path in train.parent.rglob("*.png")]
    pixels = np.concatenate([image.reshape(-1, 3) for image in everything]) / 255
    context = kit.context_of(kit.restorer(), make_data(root=str(train.parent)))
    context.data.statistics = Statistics(torch.tensor(pixels.mean(0)), torch.tensor(pixels.std(0)), len(pixels))
    assert "statistics-not-from-train" in kit.check(context).faults


@pytest.mark.planted("statistics-not-from-train")
def test_a_network_with_statistics_of_its_own(kit, make_data):
    context = kit.context_of(kit.restorer(), make_data())
    context.model.network.normalize_input.set([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert "statistics-not-from-train" in kit.check(context).faults


CHANGES = {
    "mirrored": lambda x, y: (x.flip(3), y),
    "upside-down": lambda x, y: (x, y.flip(2)),
    "shifted": lambda x, y: (x.roll(7, 3), y),
    "rotated": lambda x, y: (x.rot90(1, (2, 3)), y),
    "now-and-then": lambda x, y: (torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x), y),
    "shuffled": lambda x, y: (x, y.roll(1, 0)),
}


NOISY = {"noise": SaltAndPepper(0.1), "crop": 40}
MISALIGNED = [pytest.param(change, {}, id=name) for name, change in CHANGES.items()]
MISALIGNED += [pytest.param(CHANGES[name], NOISY, id=f"{name} in noise") for name in ("shifted", "shuffled")]


@pytest.mark.planted("pair-misaligned")
@pytest.mark.parametrize(("change", "data"), MISALIGNED)
def test_one_side_that_is_changed_alone(look, change, data):
    assert look(change=change, crops_per_image=8, **data).faults == ["pair-misaligned"]


@pytest.mark.parametrize(
    ("shift", "faults"),
    [
        pytest.param(0, [], id="that belong together", marks=pytest.mark.healthy),
        pytest.param(1, ["pair-misaligned"], id="in another order", marks=pytest.mark.planted("pair-misaligned")),
    ],
)
def test_files_in_pairs(look, kit, make_scenes, shift, faults):
    """Gray images and the same in color, under the names shifted by so many."""
    colors = make_scenes(24, "sources")
    names = sorted(path.name for path in colors.iterdir())
    gray, target = colors.with_name("gray"), colors.with_name("color")
    gray.mkdir(), target.mkdir()
    for name, other in zip(names, names[shift:] + names[:shift], strict=True):
        Image.open(colors / name).convert("L").save(gray / name)
        Image.open(colors / other).save(target / name)
    data = {"root": str(gray), "target_root": str(target), "pairs": PairedInput()}
    assert look(kit.small_unet(residual=False), **data).faults == faults


@pytest.mark.planted("target-grey")
@pytest.mark.parametrize("tint", [0, 2])
def test_targets_without_colors(look, kit, tmp_path, tint):
    root = tmp_path / "gray"
    root.mkdir()
    for number in range(16):
        gray = kit.scene(number)[..., :1].astype(int) + np.array([0, tint, 0])
        Image.fromarray(np.uint8(gray.clip(0, 255))).save(root / f"{number}.png")
    model = kit.colorizer(generator=UNet(1, 2, widths=[8, 12]), discriminator=None, space="lab")
    assert look(model, root=str(root), pairs=GrayToColor()).faults == ["target-grey"]


@pytest.mark.healthy
@pytest.mark.parametrize("crop", [24, 40])
@pytest.mark.parametrize("amount", [0.1, 0.3, 0.5, 0.7, None])
def test_noise_that_buries_edges_is_no_other_pair(look, kit, crop, amount):
    noise = SaltAndPepper(amount) if amount else GaussianNoise(150)
    assert look(change=lambda x, y: (x, y), noise=noise, crop=crop, crops_per_image=8).faults == []


@pytest.mark.healthy
def test_sparse_noise_that_l1_leaves_alone_for_long_can_be_overfit(look, kit):
    assert look(pairs=SaltAndPepper(0.1), overfit=250).faults == []


def test_images_for_pretrained_weights(look, kit):
    torch.manual_seed(0)
    network = BackboneUNet(backbone="mobilenet_v3_small", weights="none", stages=2, widths=[6, 8, 8], residual=True)
    found = look(network)
    assert isinstance(found.of("pretrained-range"), Passed)
    assert isinstance(found.of("input-not-centred"), Skipped)
    found = look(Normalized(network))
    assert "pretrained-range" in found.faults and "input-not-centred" not in found.faults


class Segmenter(LightningModule):
    """Two classes of pixels; the target is int64 (B, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.network = UNet(3, 2, widths=[8, 12], norm="group")

    def setup(self, stage):
        self.network.normalize_input.set(*self.trainer.datamodule.normalization["input"])

    def forward(self, x):
        return self.network(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch.input), batch.target)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@pytest.mark.healthy
def test_masks_as_targets(kit, make_scenes, make_data, tmp_path):
    root, masks = make_scenes(20), tmp_path / "masks"
    masks.mkdir()
    for path in root.iterdir():
        bright = np.asarray(Image.open(path).convert("L")) > 128
        Image.fromarray(np.uint8(bright if path.stem != "003" else 0 * bright)).save(masks / path.name)
    context = kit.context_of(Segmenter(), make_data(root=str(root), target_root=str(masks), target="mask", pairs=None))
    found = kit.check(context, overfit=True)
    assert found.faults == [] and found.notes == []  # a mask of one class is no blank image
    assert not [outcome for outcome in found if isinstance(outcome, Skipped) and "could not" in outcome.reason]
    assert isinstance(found.of("cannot-overfit"), Passed)
    assert len(context.data.check_images(context, tmp_path)) == 4
