"""The data module: from folders on disk to batches, alone and under a Trainer."""

import json
import weakref

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image

from project.data import Batch, ImageDataModule, datamodule
from project.data import index as index_module
from project.data import pixels as pixels_module
from project.data.augment import Augment
from project.data.images import decode
from project.data.pairs import GaussianNoise, LinesToColor, PairedInput
from workbench.errors import UserError

PARTS = ("train", "val", "test")


@pytest.fixture
def make(tmp_path, make_images):
    """A data module on ten images, with small numbers everywhere and no workers."""
    folder = make_images(10, 52, 40)

    def build(stage="fit", **options):
        defaults = {"root": folder, "cache_dir": tmp_path / "cache", "crop": 16, "batch_size": 3}
        module = ImageDataModule(**{**defaults, "num_workers": 0, "seed": 1, **options})
        if stage is not None:
            module.prepare_data()
            module.setup(stage)
        return module

    build.folder = folder
    build.cache = tmp_path / "cache"
    return build


def names(module):
    return {part: [record.name for record in module.images[part]] for part in PARTS}


def check_statistics(statistics, paths):
    pixels = np.concatenate([np.asarray(Image.open(path)).reshape(-1, 3) for path in paths]) / 255
    np.testing.assert_allclose(statistics.mean, pixels.mean(0), atol=1e-6, rtol=0)
    np.testing.assert_allclose(statistics.std, pixels.std(0), atol=1e-6, rtol=0)


# What is prepared


def test_splits_statistics_and_what_a_fit_prints(make, capsys):
    module = make()
    printed = capsys.readouterr().out
    assert "7 train, 2 val, 1 test" in printed and printed.count("\n") == 1
    assert {split: len(paths) for split, paths in module.splits.items()} == {"train": 7, "val": 2, "test": 1}
    everything = sorted(path for paths in module.splits.values() for path in paths)
    assert everything == sorted(str(path) for path in make.folder.glob("*.png"))
    check_statistics(module.statistics, module.splits["train"])
    assert module.target_statistics is module.statistics


@pytest.mark.parametrize(("decoded_cache_gb", "pairs"), [(0, False), (1.0, False), (0, True), (1.0, True)])
def test_another_process_finds_what_one_has_prepared(make, make_images, decoded_cache_gb, pairs):
    options = {"decoded_cache_gb": decoded_cache_gb, "num_workers": 2}
    options |= {"target_root": str(make_images(10, 52, 40, folder="b", seed=1))} if pairs else {}
    first, second = make(**options), make(stage=None, **options)
    second.setup("fit")
    assert second.images == first.images
    assert torch.equal(second.statistics.mean, first.statistics.mean)
    assert (second.target_statistics is second.statistics) == (not pairs)
    if pairs:
        check_statistics(second.target_statistics, [r.target_path for r in second.images["train"]])
    for part in PARTS:
        store = second.dataset(part).store
        assert (store.has_targets, store.mapped) == (pairs, decoded_cache_gb > 0)
        assert np.array_equal(store[0], decode(second.images[part][0].path, 3))


def test_prepared_comes_first_and_once(make, monkeypatch):
    with pytest.raises(UserError, match="setup"):
        make(stage=None).train_dataloader()
    with pytest.raises(UserError, match="setup"):
        _ = make(stage=None).normalization
    first = make()
    for module in (index_module, pixels_module):  # the second time no image is decoded
        monkeypatch.setattr(module, "decode", lambda *_, **__: pytest.fail("decoded again"))
    assert make().splits == first.splits
    monkeypatch.setattr(datamodule, "build_catalog", lambda *_, **__: pytest.fail("prepared anew"))
    first.prepare_data()  # a fit's own test


def test_a_grown_folder_keeps_its_splits_and_a_changed_file_renews_the_rest(make, make_images):
    first = make()
    make_images(30, 52, 40)
    grown = make()
    assert all(set(names(first)[part]) <= set(names(grown)[part]) for part in PARTS)
    assert [len(grown.splits[part]) for part in PARTS] == [21, 6, 3]
    Image.new("RGB", (33, 44), "white").save(grown.splits["train"][3])
    changed = make()
    np.testing.assert_array_equal(changed.dataset("train").store[3], np.full((44, 33, 3), 255))
    for module in (grown, changed):
        assert module.statistics.pixels == sum(r.width * r.height for r in module.images["train"])
    check_statistics(changed.statistics, changed.splits["train"])


def test_exclusions_count_anew_and_all_others_stay(make, tmp_path, capsys):
    before = names(make())
    splits = {path: path.read_bytes() for path in make.cache.glob("split-*.json")}
    assert splits
    exclude = tmp_path / "out.csv"
    gone = [*before["train"][:3], before["val"][0]]
    exclude.write_text("".join(f"{name},0.1\n" for name in ["file", *gone]))
    for cache in (make.cache, tmp_path / "fresh"):  # with an earlier split and without one
        capsys.readouterr()
        module = make(exclude=str(exclude), cache_dir=str(cache))
        assert names(module) == {part: [name for name in before[part] if name not in gone] for part in PARTS}
        check_statistics(module.statistics, module.splits["train"])
        assert "Left out: 3 train, 1 val (--data.exclude" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in make.cache.glob("split-*.json")} == splits
    exclude.write_text("\n".join(before["test"]))
    with pytest.raises(UserError, match="leaves no image for test"):
        make(exclude=str(exclude))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"data\.batch_size is 0"),
        ({"num_workers": -1}, r"data\.num_workers is -1"),
        ({"input_range": "standardized"}, r"data\.input_range is 'standardized': .* standardize, zero_one"),
        ({"channels": 2}, r"data\.channels is 2"),
        ({"fractions": (0.7, 0.2, 0.2)}, r"data\.fractions"),
        ({"crop": 32, "resize": 20}, r"--data\.crop 20"),
        ({"pairs": PairedInput()}, r"--data\.target_root"),
        ({"target": "mask"}, r"data\.target mask needs --data\.target_root"),
        ({"target": "mask", "target_root": "a", "pairs": LinesToColor()}, "no coloring"),
        ({"target": "mask", "target_root": "a", "extra_pairs": "b"}, r"neither data\.extra_pairs"),
    ],
)
def test_impossible_values(make, options, message):
    with pytest.raises(UserError, match=message):
        make(stage=None, **options)


# What the network sees


def test_the_three_input_ranges(make, tmp_path):
    for input_range, mean, std in (("zero_one", [0.0] * 3, [1.0] * 3), ("minus_one_one", [0.5] * 3, [0.5] * 3)):
        module = make(input_range=input_range, pairs=GaussianNoise(noise_map=True))
        assert module.normalization == {"input": ([*mean, 0.0], [*std, 1.0]), "target": (mean, std)}
    module = make()
    expected = (module.statistics.mean.tolist(), module.statistics.std.tolist())
    assert module.normalization == {"input": expected, "target": expected}
    (tmp_path / "flat").mkdir()
    for position in range(10):  # a constant channel is not divided by zero
        Image.new("RGB", (20, 20), (position, position, 9)).save(tmp_path / "flat" / f"{position}.png")
    assert make(root=str(tmp_path / "flat")).normalization["input"][1][2] == pytest.approx(1 / 255)


def test_the_checkpoints_statistics_stand_in(make):
    state = json.loads(json.dumps(make().state_dict()))  # plain values only
    module, own = make(stage="test", protocol="kair"), make()
    assert module.statistics is None
    module.load_state_dict(state)
    assert torch.equal(module.statistics.mean, own.statistics.mean)
    own.load_state_dict({"statistics": {"mean": [9.0] * 3, "std": [1.0] * 3, "pixels": 1}})
    assert torch.equal(module.statistics.mean, own.statistics.mean)


def test_training_batches(make):
    module = make(crops_per_image=2)
    batches = list(module.train_dataloader())
    assert [batch.image.shape for batch in batches] == [(3, 3, 16, 16)] * 4  # 14 draws, the odd two left for later
    pair = module.make_batch(batches[0], training=True)
    assert pair.input.dtype == pair.target.dtype == torch.float32
    assert torch.equal(pair.target, batches[0].image / 255)
    assert pair.index.tolist() == batches[0].index.tolist()
    assert not torch.equal(pair.input, module.make_batch(batches[0], training=True).input)
    assert [batch.image.shape[0] for batch in make(batch_size=50).train_dataloader()] == [7]


def test_a_loader_goes_with_its_last_name(make):
    """By the garbage collector its workers would be waited for, five seconds each."""
    loader = make().train_dataloader()
    next(iter(loader))
    alive = weakref.ref(loader)
    del loader
    assert alive() is None


def test_evaluation_does_not_depend_on_batches_workers_or_passes(make):
    def inputs(module):
        loader = module.val_dataloader()
        pairs = [module.make_batch(batch) for _ in range(2) for batch in loader]
        return torch.cat([pair.input for pair in pairs])

    expected = inputs(make())
    assert expected.shape == (4, 3, 40, 52)
    assert torch.equal(expected[:2], expected[2:])
    assert torch.equal(inputs(make(eval_batch_size=2)), expected)
    assert torch.equal(inputs(make(num_workers=2)), expected)
    assert not torch.equal(inputs(make(seed=2)), expected)


def test_the_seed_is_seed_everythings(make, monkeypatch):
    def first(seed=None):
        return next(iter(make(seed=seed).train_dataloader())).image

    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    seven = first()
    assert torch.equal(seven, first(seed=7))
    monkeypatch.delenv("PL_GLOBAL_SEED")
    assert torch.equal(first(), first(seed=42))
    assert not torch.equal(first(), seven)


def test_folder_pairs(make, tmp_path, capsys):
    (tmp_path / "negatives").mkdir()
    for path in make.folder.glob("*.png"):
        Image.fromarray(255 - np.asarray(Image.open(path))).save(tmp_path / "negatives" / path.name)
    options = {"target_root": str(tmp_path / "negatives"), "augment": Augment(rotate_degrees=20)}
    module = make(pairs=GaussianNoise(), **options)
    assert "GaussianNoise is off" in capsys.readouterr().out
    pair = module.make_batch(next(iter(module.train_dataloader())), training=True)
    assert torch.allclose(pair.target, 1 - pair.input, atol=1.1 / 255)  # rounding after interpolation
    assert torch.equal(pair.baseline, pair.input)
    mean = module.normalization["input"][0]
    assert np.allclose(module.normalization["target"][0], [1 - value for value in mean], atol=1e-6)


@pytest.mark.parametrize("decoded_cache_gb", [0, 1.0])
def test_masks(make, tmp_path, make_images, decoded_cache_gb):
    """Palette images of classes 0 to 4, which follow from the image, of another aspect ratio than 1."""
    folder = make_images(10, 60, 40, folder="photos")
    (tmp_path / "masks").mkdir()
    for path in folder.glob("*.png"):
        mask = Image.fromarray((np.asarray(Image.open(path))[..., 0] // 52).astype(np.uint8))
        mask.putpalette(np.random.default_rng(0).integers(0, 256, (5, 3), np.uint8).tobytes())
        mask.save(tmp_path / "masks" / path.name)
    options = {"root": str(folder), "target_root": str(tmp_path / "masks"), "target": "mask"}
    options["decoded_cache_gb"] = decoded_cache_gb
    module = make(pairs=GaussianNoise(), eval_batch_size=2, **options)
    check_statistics(module.statistics, module.splits["train"])
    assert module.target_statistics is module.statistics
    assert module.normalization["target"] == ([0.0], [1.0])
    for batch in map(module.make_batch, module.train_dataloader()):  # flips and quarter turns, crops
        assert batch.target.dtype == torch.int64 and batch.target.shape == (3, 16, 16) and batch.baseline is None
        assert torch.equal(batch.target, (batch.input[:, 0] * 255).round().long() // 52), "both sides alike, no noise"
    raw = next(iter(module.val_dataloader()))
    batch, half = module.make_batch(raw), module.make_batch(raw, half=True)
    for target, path in zip(batch.target, module.splits["val"], strict=True):
        assert np.array_equal(target.numpy(), np.asarray(Image.open(path))[..., 0] // 52)
    assert half.input.shape == (2, 3, 20, 30) and torch.equal(half.target, batch.target[:, ::2, ::2])
    small = make(resize=16, augment=Augment(rotate_degrees=30), **options)
    for batch in map(small.make_batch, small.train_dataloader()):
        assert batch.target.shape == (3, 16, 16) and set(batch.target.unique().tolist()) <= set(range(5))


def test_weights_and_as_many_of_each_tag(make, tmp_path, make_images):
    make_images(30, folder="tagged/many", seed=1)
    make_images(6, folder="tagged/few", seed=2)

    def share_of_few(**options):
        module = make(root=str(tmp_path / "tagged"), crops_per_image=40, batch_size=10, **options)
        numbers = torch.cat([batch.index for batch in module.train_dataloader()])
        few = [position for position, path in enumerate(module.splits["train"]) if "few" in path]
        return torch.isin(numbers, torch.tensor(few)).float().mean().item()

    assert share_of_few() < 0.3
    assert share_of_few(weights={}) == pytest.approx(0.5, abs=0.07)
    assert share_of_few(weights={"few": 3}) == pytest.approx(0.75, abs=0.07)


def test_kair_tests_every_image_by_the_published_noise(make, make_images):
    folder = make_images(2, 14, 9, folder="two")  # fewer than three, smaller than the crop
    options = {"protocol": "kair", "eval_batch_size": 4, "eval_crop": 8, "pairs": GaussianNoise(25, noise_map=True)}
    module = make(stage="test", root=str(folder), **options)
    assert names(module) == {"train": [], "val": [], "test": ["000.png", "001.png"]}
    for batch, path in zip(module.test_dataloader(), module.splits["test"], strict=True):
        clean = np.asarray(Image.open(path)) / 255.0
        noisy = clean + np.random.RandomState(0).normal(0, 25 / 255.0, clean.shape)
        pair = module.make_batch(batch)
        assert np.array_equal(pair.baseline[0].numpy(), noisy.astype(np.float32).transpose(2, 0, 1))
        assert torch.equal(pair.input[:, :3], pair.baseline)
        assert pair.input[:, 3].unique().item() == pytest.approx(25 / 255)


def test_unequal_sizes_are_found_before_the_first_batch(make, make_images):
    with pytest.raises(UserError, match=r"52x40 and 40x52.*--data\.crop"):  # a quarter turn swaps the sides
        make(crop=None)
    make_images(10, 60, 33, folder="pictures/more", seed=5)
    make(eval_batch_size=2, eval_crop=32).val_dataloader()
    for options in ({}, {"eval_crop": 36}):
        with pytest.raises(UserError, match=r"pixels.*--data\.eval_batch_size 1"):
            make(eval_batch_size=2, **options).val_dataloader()
    with pytest.raises(UserError, match=r"60x33 and 52x40 pixels.*--data\.crop"):
        make(crop=None, augment=Augment(quarter_turns=False))


def test_a_split_without_images_cannot_be_loaded(make):
    module = make(fractions=[0.8, 0.2, 0])
    assert len(list(module.val_dataloader())) == 2
    with pytest.raises(UserError, match="There is no test image"):
        module.test_dataloader()
    with pytest.raises(UserError, match=r"There is no train image.*\n.*protocol kair"):
        make(protocol="kair")


def test_a_process_without_an_image_of_its_own_gets_one_that_does_not_count(make):
    module = make()
    loader = module.test_dataloader()
    assert len(module.splits["test"]) == 1
    loader.sampler._place = lambda: (2, 0)
    (own,) = [module.on_after_batch_transfer(raw, 0) for raw in loader]
    loader.sampler._place = lambda: (2, 1)
    (other,) = [module.on_after_batch_transfer(raw, 0) for raw in loader]
    assert own.is_padding is None and other.is_padding is not None
    assert torch.equal(own.input, other.input)


def test_batches_of_others_pass_unchanged(make):
    batch = {"mine": torch.ones(2)}
    assert make(stage=None).on_after_batch_transfer(batch, 0) is batch


# Under a trainer


class Watcher(pl.LightningModule):
    """Learns next to nothing, and records every input that it sees."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.seen = []

    def training_step(self, batch):
        assert isinstance(batch, Batch)
        self.seen.append(batch.input.clone())
        return (batch.input * self.scale - batch.target).square().mean()

    def validation_step(self, batch):
        self.seen.append(batch.baseline.clone())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def fit(module, tmp_path, ckpt_path=None, **options):
    pl.seed_everything(3, verbose=False)
    watcher = Watcher()
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, num_sanity_val_steps=0, **options,
    )  # fmt: skip
    trainer.fit(watcher, module, ckpt_path=ckpt_path)
    return watcher


def keep_every(steps, tmp_path):
    return pl.callbacks.ModelCheckpoint(tmp_path / "kept", every_n_train_steps=steps, save_top_k=-1, filename="{step}")


def test_first_epochs_at_half_the_size(make, tmp_path, make_images):
    """Whole images of 15 x 22: at an odd border, the pixels that are there count."""
    folder = make_images(8, 22, 15, folder="odd")
    options = {"root": str(folder), "crop": None, "batch_size": 1, "augment": Augment(False, False, False)}
    options["pairs"] = GaussianNoise(0)
    whole, halved = make(**options), make(stage=None, half_size_epochs=2, **options)
    seen = fit(halved, tmp_path, max_epochs=3, enable_checkpointing=False, limit_val_batches=1)
    shapes = [tuple(batch.shape[-2:]) for batch in seen.seen]
    epoch = len(shapes) // 3
    assert shapes[: 2 * epoch] == ([(8, 11)] * (epoch - 1) + [(15, 22)]) * 2  # validation keeps its size
    assert shapes[2 * epoch :] == [(15, 22)] * epoch
    raw = next(iter(whole.train_dataloader()))
    pair = whole.make_batch(raw, training=True, half=True)
    pixels = raw.image[0].double().numpy() / 255
    for row, column in ((0, 0), (3, 10), (7, 4)):
        expected = pixels[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].mean(axis=(1, 2))
        assert np.allclose(pair.target[0, :, row, column].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(("workers", "max_steps"), [(0, 10), (1, -1)])
@pytest.mark.parametrize("step", [3, 4, 6])
def test_resuming_continues_with_the_batches_that_were_due(make, tmp_path, workers, max_steps, step):
    """Four batches an epoch: stopped in the first epoch's middle, at its end, and in the second's middle.

    They are the same with and without workers.
    """
    options = {"crops_per_image": 2, "pairs": GaussianNoise(0)}
    limits = {"limit_val_batches": 0, "max_steps": max_steps, "max_epochs": 3}
    data = make(stage=None, num_workers=workers, **options)
    whole = fit(data, tmp_path, callbacks=[keep_every(step, tmp_path)], **limits)
    path = tmp_path / "kept" / f"step={step}.ckpt"
    data = make(stage=None, num_workers=1 - workers, **options)
    rest = fit(data, tmp_path, ckpt_path=path, enable_checkpointing=False, **limits)
    total = 10 if max_steps > 0 else 12
    assert len(whole.seen) == total and len(rest.seen) == total - step
    assert all(torch.equal(a, b) for a, b in zip(rest.seen, whole.seen[step:], strict=True))
    assert not torch.equal(whole.seen[0], whole.seen[4]), "each epoch has an order of its own"
    checkpoint = torch.load(path, weights_only=True)  # plain values
    assert checkpoint["ImageDataModule"]["statistics"]["pixels"] == 7 * 40 * 52
    saved = checkpoint["datamodule_hyper_parameters"]
    assert saved["root"] == str(make.folder) and not {"pairs", "augment"} & saved.keys()


def test_somebody_else_may_read_training_batches_meanwhile(make, tmp_path):
    """Only the trainer's own loader leaves out what an interrupted run has had."""

    found = []

    def look(trainer, *_):
        found.append(len(list(trainer.datamodule.train_dataloader())))

    options = {"max_epochs": 1, "limit_val_batches": 0}
    fit(make(stage=None, crops_per_image=2), tmp_path, callbacks=[keep_every(3, tmp_path)], **options)
    path = tmp_path / "kept" / "step=3.ckpt"
    callback = pl.callbacks.LambdaCallback(on_train_start=look, on_train_batch_end=look)
    watcher = fit(make(stage=None, crops_per_image=2), tmp_path, ckpt_path=path, callbacks=[callback], **options)
    assert len(watcher.seen) == 1 and found == [4, 4]


def test_overfitting_on_a_few_batches_repeats_them(make, tmp_path):
    module = make(stage=None, pairs=GaussianNoise(0))
    watcher = fit(module, tmp_path, overfit_batches=1, max_epochs=2, enable_checkpointing=False)
    training = [seen for seen in watcher.seen if seen.shape[-1] == 16]
    assert len(training) == 2 and torch.equal(training[0], training[1])
