"""The data module: from folders on disk to pairs, alone and under a Trainer."""

import json
import weakref

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image

from project.data import Batch, ImageDataModule, RawBatch, prepared
from project.data.augment import Augment
from project.data.pairs import GaussianNoise, PairedInput, SaltAndPepper
from workbench.errors import UserError


def write_pictures(folder, number, size=(40, 52), seed=0):
    """Smooth random PNG images, each another."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for position in range(number):
        coarse = generator.integers(0, 256, (5, 7, 3), np.uint8)
        Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC).save(folder / f"{position:02d}.png")
    return folder


@pytest.fixture
def make(tmp_path):
    """A data module on ten images, with small numbers everywhere and no workers."""
    folder = write_pictures(tmp_path / "pictures", 10)

    def build(stage="fit", **options):
        defaults = {"root": str(folder), "cache_dir": str(tmp_path / "cache"), "crop": 16, "batch_size": 3}
        module = ImageDataModule(**{**defaults, "num_workers": 0, "seed": 1, **options})
        if stage is not None:
            module.prepare_data()
            module.setup(stage)
        return module

    build.folder = folder
    return build


def test_splits_and_statistics(make):
    module = make()
    assert {split: len(paths) for split, paths in module.splits.items()} == {"train": 7, "val": 2, "test": 1}
    everything = sorted(path for paths in module.splits.values() for path in paths)
    assert everything == sorted(str(path) for path in make.folder.glob("*.png"))
    pixels = np.concatenate([np.asarray(Image.open(path)).reshape(-1, 3) for path in module.splits["train"]]) / 255
    for found, expected in ((module.statistics.mean, pixels.mean(0)), (module.statistics.std, pixels.std(0))):
        assert found.dtype == torch.float32
        assert np.allclose(found.numpy(), expected, atol=1e-6)
    assert module.target_statistics is module.statistics


def test_what_a_fit_prints(make, capsys):
    make()
    printed = capsys.readouterr().out
    assert "7 train, 2 val, 1 test" in printed and printed.count("\n") == 1


def test_training_batches(make):
    module = make(crops_per_image=2)
    batches = list(module.train_dataloader())
    assert [batch.image.shape for batch in batches] == [(3, 3, 16, 16)] * 4  # 14 draws, the odd two left for later
    pair = module.make_pair(batches[0], training=True)
    assert isinstance(pair, Batch)
    assert pair.input.dtype == pair.target.dtype == torch.float32
    assert torch.equal(pair.target, batches[0].image / 255)
    assert pair.index.tolist() == batches[0].index.tolist()
    assert not torch.equal(pair.input, module.make_pair(batches[0], training=True).input)


def test_a_loader_goes_with_its_last_name(make):
    """By the garbage collector its workers would be waited for, five seconds each."""
    loader = make().train_dataloader()
    next(iter(loader))
    alive = weakref.ref(loader)
    del loader
    assert alive() is None


def test_few_pictures_still_make_a_batch(make):
    assert [batch.image.shape[0] for batch in make(batch_size=50).train_dataloader()] == [7]


def test_evaluation_does_not_depend_on_batches_workers_or_passes(make):
    def inputs(module):
        loader = module.val_dataloader()
        pairs = [module.make_pair(batch) for _ in range(2) for batch in loader]
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


@pytest.mark.parametrize(
    ("input_range", "mean", "std"), [("zero_one", [0.0] * 3, [1.0] * 3), ("minus_one_one", [0.5] * 3, [0.5] * 3)]
)
def test_fixed_input_ranges(make, input_range, mean, std):
    module = make(input_range=input_range, pairs=GaussianNoise(noise_map=True))
    assert module.normalization == {"input": ([*mean, 0.0], [*std, 1.0]), "target": (mean, std)}


def test_standardising_by_the_training_pictures(make):
    module = make()
    expected = (module.statistics.mean.tolist(), module.statistics.std.tolist())
    assert module.normalization == {"input": expected, "target": expected}
    with pytest.raises(UserError, match="prepare_data"):
        _ = make(stage=None).normalization


def test_a_constant_channel_is_not_divided_by_nothing(tmp_path):
    for position in range(10):
        pixels = np.full((20, 20, 3), position, np.uint8)
        pixels[..., 2] = 9
        (tmp_path / "flat").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "flat" / f"{position}.png")
    module = ImageDataModule(root=str(tmp_path / "flat"), crop=16, cache_dir=str(tmp_path / "cache"))
    module.prepare_data()
    module.setup("fit")
    assert module.normalization["input"][1][2] == pytest.approx(1 / 255)


def test_gray_pictures_resized(make):
    module = make(channels=1, resize=20, crop=20)
    assert next(iter(module.train_dataloader())).image.shape == (3, 1, 20, 20)
    assert next(iter(module.val_dataloader())).image.shape == (1, 1, 20, 26)
    assert module.statistics.mean.shape == (1,)


def test_folder_pairs(make, tmp_path, capsys):
    target_root = tmp_path / "negatives"
    target_root.mkdir()
    for path in make.folder.glob("*.png"):
        Image.fromarray(255 - np.asarray(Image.open(path))).save(target_root / path.name)
    module = make(target_root=str(target_root), augment=Augment(rotate_degrees=20), pairs=GaussianNoise())
    assert isinstance(module.pairs, PairedInput)
    assert "GaussianNoise is off" in capsys.readouterr().out
    pair = module.make_pair(next(iter(module.train_dataloader())), training=True)
    assert torch.allclose(pair.target, 1 - pair.input, atol=1.1 / 255)  # rounding after interpolation
    assert torch.equal(pair.baseline, pair.input)
    mean = module.normalization["input"][0]
    assert np.allclose(module.normalization["target"][0], [1 - value for value in mean], atol=1e-6)


def test_weights_and_balance(make, tmp_path):
    write_pictures(tmp_path / "tagged" / "many", 30, seed=1)
    write_pictures(tmp_path / "tagged" / "few", 6, seed=2)

    def share_of_few(**options):
        module = make(root=str(tmp_path / "tagged"), crops_per_image=40, batch_size=10, **options)
        numbers = torch.cat([batch.index for batch in module.train_dataloader()])
        few = [position for position, path in enumerate(module.splits["train"]) if "few" in path]
        return torch.isin(numbers, torch.tensor(few)).float().mean().item()

    assert share_of_few() < 0.3
    assert share_of_few(balance="tags") == pytest.approx(0.5, abs=0.07)
    assert share_of_few(weights={"few": 3}) == pytest.approx(0.75, abs=0.07)
    with pytest.raises(UserError, match="did you mean 'few'"):
        share_of_few(weights={"few_": 3})


def test_kair_tests_every_picture_by_the_published_noise(make, tmp_path):
    folder = write_pictures(tmp_path / "one", 1, size=(9, 14))  # one image, smaller than the crop
    module = make(stage="test", root=str(folder), protocol="kair", eval_batch_size=4, eval_crop=8)
    assert module.splits == {"train": [], "val": [], "test": [str(folder / "00.png")]}
    (batch,) = module.test_dataloader()
    clean = np.asarray(Image.open(folder / "00.png")) / 255.0
    noisy = clean + np.random.RandomState(0).normal(0, 25 / 255.0, clean.shape)
    assert np.array_equal(module.make_pair(batch).input[0].numpy(), noisy.astype(np.float32).transpose(2, 0, 1))


@pytest.mark.parametrize("stage", ["fit", "validate"])
def test_kair_is_for_testing_only(make, stage):
    with pytest.raises(UserError, match=f"nothing to {stage}"):
        make(stage=stage, protocol="kair")


def test_kair_is_refused_before_anything_is_prepared(make, tmp_path):
    with pytest.raises(UserError, match="nothing to fit"):
        fit(make(stage=None, protocol="kair", cache_dir=str(tmp_path / "new")), tmp_path, enable_checkpointing=False)
    assert not (tmp_path / "new").exists()


def test_the_checkpoints_statistics_stand_in(make):
    state = json.loads(json.dumps(make().state_dict()))  # plain values only
    module = make(stage="test", protocol="kair")
    assert module.statistics is None
    module.load_state_dict(state)
    assert torch.equal(module.statistics.mean, make().statistics.mean)
    own = make(seed=3)
    before = own.statistics
    own.load_state_dict({"statistics": {"mean": [0.0] * 3, "std": [1.0] * 3, "pixels": 1}})
    assert own.statistics is before


def test_paths_may_be_path_objects(make, tmp_path):
    module = make(root=make.folder, cache_dir=tmp_path / "cache")
    assert module.splits == make().splits
    assert json.loads(json.dumps(dict(module.hparams)))["root"] == str(make.folder)
    assert make(root=[make.folder]).hparams["root"] == [str(make.folder)]


def test_hyperparameters_are_plain(make):
    module = make(stage=None, pairs=SaltAndPepper(), augment=Augment(hflip=False))
    assert "pairs" not in module.hparams and "augment" not in module.hparams
    assert module.hparams["crop"] == 16
    assert json.loads(json.dumps(dict(module.hparams)))["root"] == str(make.folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"data\.batch_size is 0"),
        ({"crop": 0}, r"data\.crop is 0"),
        ({"num_workers": -1}, r"data\.num_workers is -1"),
        ({"seed": -1}, r"data\.seed is -1"),
        ({"half_size_epochs": -1}, r"data\.half_size_epochs is -1"),
        ({"input_range": "standardized"}, r"data\.input_range is 'standardized': .* standardize, zero_one"),
        ({"balance": "all"}, r"data\.balance is 'all'"),
        ({"protocol": "KAIR"}, r"data\.protocol is 'KAIR'"),
        ({"crop": 32, "resize": 20}, r"--data\.crop 20"),
        ({"weights": {"a": 1.0}, "balance": "tags"}, "exclude each other"),
        ({"pairs": PairedInput()}, r"--data\.target_root"),
    ],
)
def test_impossible_values(make, options, message):
    with pytest.raises(UserError, match=message):
        make(stage=None, **options)


def test_pictures_smaller_than_the_crop_are_named(make):
    Image.new("RGB", (15, 40)).save(make.folder / "narrow.png")
    with pytest.raises(UserError, match=r"narrow\.png"):
        make()


def test_unequal_sizes_are_found_before_the_first_batch(make, tmp_path):
    write_pictures(make.folder / "more", 10, size=(33, 60), seed=5)
    with pytest.raises(UserError, match=r"--data\.eval_batch_size 1"):
        make(eval_batch_size=2).val_dataloader()
    make(eval_batch_size=2, eval_crop=32).val_dataloader()
    with pytest.raises(UserError, match=r"--data\.crop"):
        make(crop=None).train_dataloader()


def test_a_share_of_nought_has_no_pictures_to_load(make):
    module = make(fractions=[0.8, 0.2, 0])
    assert len(list(module.val_dataloader())) == 2
    with pytest.raises(UserError, match=r"There is no test image: data.fractions are \[0.8, 0.2, 0\]"):
        module.test_dataloader()


def test_a_fits_own_test_prepares_nothing_anew(make, monkeypatch):
    module = make()
    monkeypatch.setattr(prepared, "build_catalog", lambda *_, **__: pytest.fail("prepared anew"))
    module.prepare_data()


def test_prepared_comes_first(make):
    with pytest.raises(UserError, match="prepare_data"):
        make(stage=None).setup("fit")
    with pytest.raises(UserError, match="prepare_data"):
        make(stage=None).train_dataloader()


class Watcher(pl.LightningModule):
    """Learns next to nothing, and writes down every input that it sees."""

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
    return watcher, trainer


def test_a_trainer_sees_pairs_the_same_with_and_without_workers(make, tmp_path):
    options = {"max_epochs": 2, "enable_checkpointing": False}
    alone, _ = fit(make(stage=None), tmp_path, **options)
    together, _ = fit(make(stage=None, num_workers=2), tmp_path, **options)
    assert len(alone.seen) == len(together.seen) == 2 * (2 + 2)
    assert all(torch.equal(a, b) for a, b in zip(alone.seen, together.seen, strict=True))
    assert torch.equal(alone.seen[2], alone.seen[6])  # validation noise is the same in each epoch
    assert not torch.equal(alone.seen[0], alone.seen[4])


def test_first_epochs_at_half_the_size(make, tmp_path):
    """Whole images of 15 x 22: of a pixel more than a pair, the pixels that are there count."""
    folder = write_pictures(tmp_path / "odd", 8, size=(15, 22))
    options = {"root": str(folder), "crop": None, "batch_size": 1, "augment": Augment(False, False, False)}
    options["pairs"] = GaussianNoise(0)
    whole, halved = make(**options), make(stage=None, half_size_epochs=2, **options)
    seen, _ = fit(halved, tmp_path, max_epochs=3, enable_checkpointing=False, limit_val_batches=1)
    shapes = [tuple(batch.shape[-2:]) for batch in seen.seen]
    epoch = len(shapes) // 3
    assert shapes[: 2 * epoch] == ([(8, 11)] * (epoch - 1) + [(15, 22)]) * 2  # validation keeps its size
    assert shapes[2 * epoch :] == [(15, 22)] * epoch
    raw = next(iter(whole.train_dataloader()))
    pair = whole.make_pair(raw, training=True, half=True)
    pixels = raw.image[0].double().numpy() / 255
    for row, column in ((0, 0), (3, 10), (7, 4)):
        expected = pixels[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].mean(axis=(1, 2))
        assert np.allclose(pair.target[0, :, row, column].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(("workers", "max_steps"), [(0, 10), (1, -1)])
@pytest.mark.parametrize("step", [3, 4, 6])
def test_resuming_goes_on_with_the_batches_that_were_due(make, tmp_path, workers, max_steps, step):
    """Four batches an epoch: stopped in the first epoch's middle, at its end, and in the second's middle."""
    options = {"crops_per_image": 2, "num_workers": workers, "pairs": GaussianNoise(0)}
    limits = {"limit_val_batches": 0, "max_steps": max_steps, "max_epochs": 3}
    callback = pl.callbacks.ModelCheckpoint(
        tmp_path / "kept", every_n_train_steps=step, save_top_k=-1, filename="{step}"
    )
    whole, _ = fit(make(stage=None, **options), tmp_path, callbacks=[callback], **limits)
    path = tmp_path / "kept" / f"step={step}.ckpt"
    rest, _ = fit(make(stage=None, **options), tmp_path, ckpt_path=path, enable_checkpointing=False, **limits)
    total = 10 if max_steps > 0 else 12
    assert len(whole.seen) == total and len(rest.seen) == total - step
    assert all(torch.equal(a, b) for a, b in zip(rest.seen, whole.seen[step:], strict=True))
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["ImageDataModule"]["statistics"]["pixels"] == 7 * 40 * 52


def test_somebody_else_may_look_at_training_batches_meanwhile(make, tmp_path):
    """Only the trainer's own loader leaves out what an interrupted run has had."""

    class Look(pl.Callback):
        def on_train_start(self, trainer, *_):
            self.at_start = len(list(trainer.datamodule.train_dataloader()))

        def on_train_batch_end(self, trainer, *_):
            self.meanwhile = len(list(trainer.datamodule.train_dataloader()))

    options = {"max_epochs": 1, "limit_val_batches": 0}
    callback = pl.callbacks.ModelCheckpoint(tmp_path / "kept", every_n_train_steps=3, filename="{step}")
    fit(make(stage=None, crops_per_image=2), tmp_path, callbacks=[callback], **options)
    look, path = Look(), tmp_path / "kept" / "step=3.ckpt"
    watcher, _ = fit(make(stage=None, crops_per_image=2), tmp_path, ckpt_path=path, callbacks=[look], **options)
    assert len(watcher.seen) == 1
    assert (look.at_start, look.meanwhile) == (4, 4)


def test_a_process_without_a_picture_of_its_own_gets_one_that_does_not_count(make):
    module = make()
    loader = module.test_dataloader()
    assert len(module.splits["test"]) == 1
    loader.sampler._given = (2, 0)
    (own,) = [module.on_after_batch_transfer(raw, 0) for raw in loader]
    loader.sampler._given = (2, 1)
    (other,) = [module.on_after_batch_transfer(raw, 0) for raw in loader]
    assert own.is_padding is None and other.is_padding is not None
    assert torch.equal(own.input, other.input)


def test_overfitting_on_a_few_batches_repeats_them(make, tmp_path):
    watcher, _ = fit(
        make(stage=None, pairs=GaussianNoise(0)), tmp_path, overfit_batches=1, max_epochs=2, enable_checkpointing=False
    )
    training = [seen for seen in watcher.seen if seen.shape[-1] == 16]
    assert len(training) == 2 and torch.equal(training[0], training[1])


def test_batches_of_others_go_through(make):
    batch = {"mine": torch.ones(2)}
    assert make(stage=None).on_after_batch_transfer(batch, 0) is batch
    raw = RawBatch(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), None, torch.tensor([0]), torch.tensor([5]))
    assert isinstance(make(stage=None).on_after_batch_transfer(raw, 0), Batch)
