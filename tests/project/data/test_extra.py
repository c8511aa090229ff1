"""Extra training pairs beside the user's own images: in training alone, never of an image that is held out."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image

from project.data import ImageDataModule
from project.data.augment import Augment
from project.data.pairs import GaussianNoise, GrayToColor, LinesToColor, SpatialHints
from workbench.errors import UserError

STILL = Augment(hflip=False, vflip=False, quarter_turns=False)


def pictures(folder: Path, count: int, seed: int = 0, size=(32, 40)) -> Path:
    """Images of one color each, another in every folder: what is in a batch can be told by a pixel."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for number in range(count):
        color = generator.integers(20, 235, 3, np.uint8)
        picture = np.broadcast_to(color, (*size, 3)).copy()
        picture[: size[0] // 2] += 10
        Image.fromarray(picture).save(folder / f"{number:02d}.png")
    return folder


def pairs_folder(folder: Path, sources: list[Path], kind: str | None = None, gray: bool = False) -> Path:
    """What ``ensemble --min_confidence`` writes: the input, and as its answer the input with its colors turned."""
    rows = []
    for number, source in enumerate(sources):
        name = f"sub/{number:02d}.png"
        picture = Image.open(source).convert("RGB")
        for part, image in (("inputs", picture.convert("L") if gray else picture), ("targets", picture)):
            path = folder / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            (image if part == "inputs" else Image.fromarray(np.asarray(image)[..., ::-1])).save(path)
        digest = hashlib.blake2b(source.read_bytes(), digest_size=16).hexdigest()
        rows.append({"file": name, "from": str(source), "digest": digest, "confidence": 0.99})
    manifest = {"members": [{"checkpoint": "/a.ckpt", "sha256": "0f"}], "average": "plain", "pairs": rows}
    (folder / "manifest.json").write_text(json.dumps(manifest if kind is None else {**manifest, "kind": kind}))
    return folder


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return pictures(tmp_path / "own", 10)


@pytest.fixture
def others(tmp_path: Path) -> list[Path]:
    return sorted(pictures(tmp_path / "others", 4, seed=1).iterdir())


@pytest.fixture
def make(tmp_path: Path, own: Path):
    def build(extra: Path | str | None, stage="fit", **options):
        defaults = {"root": str(own), "crop": 16, "batch_size": 4, "augment": STILL, "num_workers": 0, "seed": 1}
        module = ImageDataModule(
            extra_pairs=extra and str(extra), cache_dir=str(tmp_path / "cache"), **{**defaults, **options}
        )
        module.prepare_data()
        module.setup(stage)
        return module

    return build


def test_they_train_and_do_not_validate_test_or_measure(make, others, tmp_path, capsys):
    plain = make(None)
    module = make(pairs_folder(tmp_path / "pairs", others))
    assert "11 train (4 of them extra pairs), 2 val, 1 test" in capsys.readouterr().out
    assert module.splits["train"][:7] == plain.splits["train"], "an earlier deal stays as it was"
    assert module.splits["val"] == plain.splits["val"] and module.splits["test"] == plain.splits["test"]
    assert torch.equal(module.statistics.mean, plain.statistics.mean)
    assert [picture.origin for picture in module.pictures["train"]] == [""] * 7 + [str(path) for path in others]
    before, after = plain.state_dict()["splits"], module.state_dict()["splits"]
    assert after["train"]["pictures"] == 11 and before["train"]["fingerprint"] != after["train"]["fingerprint"]
    assert before["val"] == after["val"] and before["test"] == after["test"]
    members = [{"checkpoint": "/a.ckpt", "sha256": "0f"}]
    assert after["train"]["extra_pairs"] == {"pictures": 4, "folder": str(tmp_path / "pairs"), "members": members}


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("workers", [0, 1])
def test_own_pictures_get_noise_and_extra_pairs_their_own_input(make, others, tmp_path, mapped, workers):
    module = make(
        pairs_folder(tmp_path / "pairs", others), decoded_cache_gb=2.0 if mapped else 0.0, num_workers=workers
    )
    seen = []
    for raw in module.train_dataloader():
        pair = module.make_pair(raw, training=True)
        assert len(pair.input) == len(raw.image) and pair.index.tolist() == raw.index.tolist()
        for x, y, baseline, number in zip(pair.input, pair.target, pair.baseline, pair.index.tolist(), strict=True):
            picture = module.pictures["train"][number]
            seen.append(number)
            assert torch.equal(x, baseline)
            if picture.origin:
                assert torch.equal(x, y.flip(0)) and not torch.equal(x, y), "the answer has its colors turned"
            else:
                assert 15 < float((x - y).std() * 255) < 35, "noise of sigma 25"
            corner = np.asarray(Image.open(picture.target_path or picture.path))[[0, -1], 0] / 255
            assert any(np.allclose(y[:, 0, 0].numpy(), color, atol=1e-6) for color in corner)
    assert len(set(seen)) == 8, "two batches of 4 of the 11, each once"


def test_folder_pairs_take_them_as_their_own(make, own, others, tmp_path):
    targets = pictures(tmp_path / "targets", 10, seed=5)
    module = make(pairs_folder(tmp_path / "pairs", others), target_root=str(targets))
    store = module.dataset("train", training=True).store
    assert store.has_targets and len(store) == 11
    raw = next(iter(module.train_dataloader()))
    assert raw.target.shape == raw.image.shape
    assert torch.equal(module.make_pair(raw, training=True).input, raw.image / 255)


@pytest.mark.parametrize(("maker", "kind"), [(GrayToColor, "lightness"), (LinesToColor, "lines")])
def test_coloring_takes_the_colors_and_their_lines_or_lightness(make, others, tmp_path, maker, kind):
    folder = pairs_folder(tmp_path / "pairs", others, kind, gray=True)
    module = make(folder, pairs=maker(SpatialHints()), batch_size=11)
    raw = next(iter(module.train_dataloader()))
    assert len(raw.target) == 4 and [n >= 7 for n in raw.index.tolist()] == [False] * 7 + [True] * 4
    pair = module.make_pair(raw, training=True)
    assert pair.input.shape[1] == 5 and torch.equal(pair.target[7:], raw.target / 255)
    expected = maker().condition_of(raw.image[7:] / 255)
    assert torch.allclose(pair.input[7:, :1], expected)


def test_what_is_held_out_is_left_out(make, own, others, tmp_path, capsys):
    held = make(None).splits
    moved = tmp_path / "moved" / "elsewhere.png"
    moved.parent.mkdir()
    moved.write_bytes(Path(held["test"][0]).read_bytes())
    sources = [others[0], Path(held["val"][0]), moved, Path(held["train"][0])]
    module = make(pairs_folder(tmp_path / "pairs", sources))
    kept = [picture.origin for picture in module.pictures["train"] if picture.origin]
    assert kept == [str(others[0]), held["train"][0]]
    assert "Left out 2 of 4 extra pairs" in (printed := capsys.readouterr().out)
    assert "validation or test split: sub/01.png, sub/02.png" in printed

    manifest = tmp_path / "pairs" / "manifest.json"
    rows = json.loads(manifest.read_text())
    for row in rows["pairs"]:
        del row["digest"]  # as an early version wrote it
    manifest.write_text(json.dumps(rows))
    assert len(make(tmp_path / "pairs").splits["train"]) == 9
    with pytest.raises(UserError, match="every pair comes from an image of the validation or test split"):
        make(pairs_folder(tmp_path / "leak", [Path(held["val"][1])]))


def test_of_a_held_out_pair_neither_side_may_come_back(make, own, tmp_path, capsys):
    targets = pictures(tmp_path / "targets", 10, seed=5)
    held = make(None, target_root=str(targets)).pictures["test"][0]
    with pytest.raises(UserError, match="every pair comes"):
        make(pairs_folder(tmp_path / "a", [Path(held.path)]), target_root=str(targets))
    with pytest.raises(UserError, match="every pair comes"):
        make(pairs_folder(tmp_path / "b", [Path(held.target_path)]), target_root=str(targets))


def test_their_weight(make, others, tmp_path):
    module = make(pairs_folder(tmp_path / "pairs", others), weights={"extra_pairs": 0.0}, crops_per_image=4)
    drawn = [number for raw in module.train_dataloader() for number in raw.index.tolist()]
    assert len(drawn) == 44 and max(drawn) < 7


def test_every_process_draws_its_share(make, others, tmp_path):
    module = make(pairs_folder(tmp_path / "pairs", others))
    numbers = []
    for rank in range(2):
        sampler = module.train_dataloader().sampler
        sampler._given = (2, rank)
        numbers += [number for number, _ in sampler]
    assert len(numbers) == 12 and set(numbers) == set(range(11))


class Sees(pl.LightningModule):
    """Notes what it is given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[torch.Tensor] = []

    def training_step(self, batch, _):
        self.seen.append(batch.input.clone())
        return (batch.input * self.weight - batch.target).abs().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_a_resumed_run_goes_on_with_the_same_batches(make, others, tmp_path):
    folder = pairs_folder(tmp_path / "pairs", others)

    def train(ckpt_path=None) -> list[torch.Tensor]:
        saving = pl.callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=3, save_top_k=-1, filename="{step}")
        trainer = pl.Trainer(
            max_steps=5,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
            limit_val_batches=0,
            callbacks=[saving],
        )
        model = Sees()
        data = make(folder, stage=None, pairs=GaussianNoise(0))  # its numbers are the run's to keep
        trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=bool(ckpt_path) or None)
        return model.seen

    whole = train()
    rest = train(tmp_path / "step=3.ckpt")
    assert len(whole) == 5 and len(rest) == 2
    assert all(torch.equal(one, other) for one, other in zip(whole[3:], rest, strict=True))


@pytest.mark.parametrize(
    ("spoil", "options", "told"),
    [
        (lambda f: f.rename(f.with_name("gone")), {}, "pairs does not exist.*ensemble --input"),
        (lambda f: (f / "manifest.json").unlink(), {}, "holds no manifest.json, which says where"),
        (lambda f: (f / "manifest.json").write_text('{"pairs": 3'), {}, "manifest.json is damaged"),
        (lambda f: (f / "manifest.json").write_text('{"pairs": [], "members": []}'), {}, "nothing was sure enough"),
        (lambda f: (f / "targets/sub/01.png").unlink(), {}, "1 of 4 images.*sub/01.png: is in manifest.json, and"),
        (
            lambda f: Image.new("RGB", (40, 30)).save(f / "targets/sub/01.png"),
            {},
            "sub/01.png: is 40x32 pixels, its target .*40x30",
        ),
        (lambda f: (f / "inputs/sub/02.png").write_text("no"), {}, "sub/02.png: not an image"),
        (lambda f: None, {"crop": 36}, "too small"),
        (lambda f: None, {"pairs": GrayToColor()}, "holds images and what they should become, .*gray photographs"),
        (lambda f: None, {"pairs": GaussianNoise(25, noise_map=True)}, "1 more channels"),
    ],
)
def test_mistakes_are_told(make, others, tmp_path, spoil, options, told):
    folder = pairs_folder(tmp_path / "pairs", others)
    spoil(folder)
    with pytest.raises(UserError) as error:
        make(folder, **options)
    assert re.search(told, str(error.value).replace("\n", " ")), error.value
    assert len(str(error.value).splitlines()) <= 10


def test_lines_are_not_lightness(make, others, tmp_path):
    with pytest.raises(UserError, match="holds lines and their colors"):
        make(pairs_folder(tmp_path / "pairs", others, "lines"), pairs=GrayToColor())
    with pytest.raises(UserError, match="holds lines and their colors"):
        make(pairs_folder(tmp_path / "more", others, "lines"))


def test_a_folder_above_is_pointed_further(make, others, tmp_path):
    pairs_folder(tmp_path / "restored" / "pairs", others)
    with pytest.raises(UserError, match=r"Did you mean .*restored/pairs\?"):
        make(tmp_path / "restored")
