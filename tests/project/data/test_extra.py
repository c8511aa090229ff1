"""Extra training pairs beside the user's own images: in training alone, never of an image that is held out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from project.data import ImageDataModule
from project.data.augment import Augment
from project.data.images import content_digest
from project.data.pairs import GaussianNoise, GrayToColor, LinesToColor, SpatialHints
from workbench.errors import UserError

STILL = Augment(hflip=False, vflip=False, quarter_turns=False)
MEMBERS = [{"checkpoint": "/a.ckpt", "sha256": "0f"}]


def images(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """Images of one color each, lighter in their upper half: a pixel shows which one is in a batch."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for number in range(count):
        image = np.broadcast_to(generator.integers(20, 235, 3, np.uint8), (32, 40, 3)).copy()
        image[:16] += 10
        Image.fromarray(image).save(folder / f"{number:02d}.png")
    return sorted(folder.iterdir())


def pairs_folder(folder: Path, sources: list[Path], kind: str = "pictures", gray: bool = False) -> Path:
    """What ``ensemble --min_confidence`` writes: the input, and as its prediction the input with red for blue."""
    rows = []
    for number, source in enumerate(sources):
        name = f"sub/{number:02d}.png"
        image = Image.open(source).convert("RGB")
        swapped = Image.fromarray(np.asarray(image)[..., ::-1])
        for part, side in (("inputs", image.convert("L") if gray else image), ("targets", swapped)):
            (folder / part / name).parent.mkdir(parents=True, exist_ok=True)
            side.save(folder / part / name)
        rows.append({"file": name, "from": str(source), "digest": content_digest(source.read_bytes())})
    (folder / "manifest.json").write_text(json.dumps({"members": MEMBERS, "kind": kind, "pairs": rows}))
    return folder


@pytest.fixture
def others(tmp_path: Path) -> list[Path]:
    return images(tmp_path / "others", 4, seed=1)


@pytest.fixture
def make(tmp_path: Path):
    images(tmp_path / "own", 10)

    def build(extra: Path | None, **options):
        defaults = {"root": str(tmp_path / "own"), "crop": 16, "batch_size": 4, "augment": STILL, "num_workers": 0}
        module = ImageDataModule(
            extra_pairs=extra and str(extra), cache_dir=str(tmp_path / "cache"), seed=1, **{**defaults, **options}
        )
        module.setup("fit")
        return module

    return build


def test_they_train_and_do_not_validate_test_or_measure(make, others, tmp_path, capsys):
    plain, module = make(None), make(pairs_folder(tmp_path / "pairs", others))
    assert "11 train (4 of them extra pairs), 2 val, 1 test" in capsys.readouterr().out
    assert module.splits["train"][:7] == plain.splits["train"], "an earlier split stays as it was"
    assert module.splits["val"] == plain.splits["val"] and module.splits["test"] == plain.splits["test"]
    assert torch.equal(module.statistics.mean, plain.statistics.mean)
    assert [record.origin for record in module.images["train"]] == [""] * 7 + [str(path) for path in others]
    before, after = plain.state_dict()["splits"], module.state_dict()["splits"]
    assert after["train"]["images"] == 11 and before["train"]["fingerprint"] != after["train"]["fingerprint"]
    assert before["val"] == after["val"] and before["test"] == after["test"]
    assert after["train"]["extra_pairs"] == {"images": 4, "folder": str(tmp_path / "pairs"), "members": MEMBERS}


@pytest.mark.parametrize(("gb", "workers"), [(2.0, 0), (0.0, 0), (2.0, 1)])
def test_own_images_get_noise_and_extra_pairs_their_own_input(make, others, tmp_path, gb, workers):
    module = make(pairs_folder(tmp_path / "pairs", others), decoded_cache_gb=gb, num_workers=workers)
    seen = []
    for raw in module.train_dataloader():
        pair = module.make_batch(raw, training=True)
        assert len(pair.input) == len(raw.image) and pair.index.tolist() == raw.index.tolist()
        for x, y, baseline, number in zip(pair.input, pair.target, pair.baseline, pair.index.tolist(), strict=True):
            record = module.images["train"][number]
            seen.append(number)
            assert torch.equal(x, baseline)
            if record.origin:
                assert torch.equal(x, y.flip(0)) and not torch.equal(x, y), "the prediction has its colors swapped"
            else:
                assert 15 < float((x - y).std() * 255) < 35, "noise of sigma 25"
            corner = np.asarray(Image.open(record.target_path or record.path))[[0, -1], 0] / 255
            assert any(np.allclose(y[:, 0, 0].numpy(), color, atol=1e-6) for color in corner)
    assert len(set(seen)) == 8, "two batches of 4 of the 11, each once"


@pytest.mark.parametrize(("maker", "kind"), [(GrayToColor, "lightness"), (LinesToColor, "lines")])
def test_coloring_takes_the_colors_and_their_lines_or_lightness(make, others, tmp_path, maker, kind):
    folder = pairs_folder(tmp_path / "pairs", others, kind, gray=True)
    module = make(folder, pairs=maker(SpatialHints()), batch_size=11)
    raw = next(iter(module.train_dataloader()))
    assert len(raw.target) == 4 and [n >= 7 for n in raw.index.tolist()] == [False] * 7 + [True] * 4
    pair = module.make_batch(raw, training=True)
    assert pair.input.shape[1] == 5 and torch.equal(pair.target[7:], raw.target / 255)
    assert torch.allclose(pair.input[7:, :1], maker().condition_of(raw.image[7:] / 255))


def test_what_is_held_out_is_left_out(make, others, tmp_path, capsys):
    held = make(None).splits
    moved = tmp_path / "moved" / "elsewhere.png"
    moved.parent.mkdir()
    moved.write_bytes(Path(held["test"][0]).read_bytes())
    sources = [others[0], Path(held["val"][0]), moved, Path(held["train"][0])]
    folder = pairs_folder(tmp_path / "pairs", sources)
    Image.open(sources[1]).save(sources[1], compress_level=0)  # other bytes now, so known by its path alone
    module = make(folder)
    kept = [record.origin for record in module.images["train"] if record.origin]
    assert kept == [str(others[0]), held["train"][0]]
    assert "Left out 2 of 4 extra pairs" in (printed := capsys.readouterr().out)
    assert "validation or test split:\n  sub/01.png\n  sub/02.png" in printed


@pytest.mark.parametrize("side", ["path", "target_path"])
def test_neither_side_of_a_held_out_pair_may_come_back(make, others, tmp_path, side):
    options = {"target_root": str(images(tmp_path / "targets", 10, seed=5)[0].parent)}
    held = make(None, **options).images["test"][0]
    with pytest.raises(UserError, match="no pair of an image that is neither in val nor in test"):
        make(pairs_folder(tmp_path / "a", [Path(getattr(held, side))]), **options)
    module = make(pairs_folder(tmp_path / "b", others), **options)  # others join the folder pairs as their own
    raw = next(iter(module.train_dataloader()))
    assert module.dataset("train").store.has_targets and len(module.splits["train"]) == 11
    assert torch.equal(module.make_batch(raw, training=True).input, raw.image / 255)


def test_their_weight(make, others, tmp_path):
    module = make(pairs_folder(tmp_path / "pairs", others), weights={"extra_pairs": 0.0}, crops_per_image=4)
    drawn = [number for raw in module.train_dataloader() for number in raw.index.tolist()]
    assert len(drawn) == 44 and max(drawn) < 7


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        (lambda f: (f / "manifest.json").unlink(), {}, r"no readable manifest.json(.|\n)*ensemble --input"),
        (lambda f: (f / "manifest.json").write_text('{"pairs": 3'), {}, "no readable manifest.json"),
        (lambda f: (f / "targets/sub/01.png").unlink(), {}, r"1 of 4 images(.|\n)*sub/01.png: has no target"),
        (lambda f: (f / "inputs/sub/02.png").write_text("no"), {}, "sub/02.png: not an image"),
        (lambda f: None, {"crop": 36}, "too small"),
        (lambda f: None, {"pairs": GrayToColor()}, "holds pictures, and data.pairs GrayToColor needs lightness"),
        (lambda f: None, {"pairs": GaussianNoise(25, noise_map=True)}, "needs 1 more channels"),
    ],
)
def test_mistakes(make, others, tmp_path, spoil, options, message):
    folder = pairs_folder(tmp_path / "pairs", others)
    spoil(folder)
    with pytest.raises(UserError, match=message):
        make(folder, **options)
