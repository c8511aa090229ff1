"""What one process prepares, every process reads alike; and each setting has its effect."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from project.data import index as index_module
from project.data import pixels as pixels_module
from project.data.cache import Cache
from project.data.catalog import Settings, build_catalog, read_catalog
from project.data.images import decode
from workbench.errors import UserError


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


def fill(folder, total=20, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(total):
        shape = (20 + number % 3, 17 + number % 5, 3)
        pixels = np.random.default_rng([seed, number]).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return str(folder)


def names(catalog):
    return {part: [picture.name for picture in pictures] for part, pictures in catalog.splits.items()}


@pytest.mark.parametrize("decoded_cache_gb", [0, 1.0])
@pytest.mark.parametrize("pairs", [False, True])
def test_read_equals_built(tmp_path, cache, decoded_cache_gb, pairs):
    settings = Settings(
        root=fill(tmp_path / "a"),
        target_root=fill(tmp_path / "b", seed=1) if pairs else None,
        decoded_cache_gb=decoded_cache_gb,
    )
    built, read = build_catalog(settings, cache, workers=2), read_catalog(settings, Cache(cache.folder))
    assert read.splits == built.splits
    assert [len(read.splits[part]) for part in ("train", "val", "test")] == [14, 4, 2]
    assert torch.equal(read.statistics.mean, built.statistics.mean)
    assert torch.equal(read.target_statistics.std, built.target_statistics.std)
    assert read.statistics.pixels == sum(p.width * p.height for p in built.splits["train"])
    assert (read.target_statistics is read.statistics) == (not pairs)
    for part in ("train", "val", "test"):
        store = read.store(part)
        assert store.has_targets == pairs
        for position, picture in enumerate(read.splits[part]):
            np.testing.assert_array_equal(store[position], decode(picture.path, 3))
            if pairs:
                np.testing.assert_array_equal(store.target(position), decode(picture.target_path, 3))


def test_statistics_are_of_the_training_pictures_alone(tmp_path, cache):
    catalog = build_catalog(Settings(root=fill(tmp_path / "a")), cache)
    train = np.concatenate([decode(p.path, 3).reshape(-1, 3) for p in catalog.splits["train"]]) / 255.0
    np.testing.assert_allclose(catalog.statistics.mean, train.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(catalog.statistics.std, train.std(axis=0), atol=1e-6)


def test_reading_before_building_says_what_to_do(tmp_path, cache):
    with pytest.raises(UserError, match="prepare_data"):
        read_catalog(Settings(root=fill(tmp_path / "a")), cache)


def test_the_second_time_no_picture_is_decoded(tmp_path, cache, monkeypatch):
    settings = Settings(root=fill(tmp_path / "a"))
    first = build_catalog(settings, cache)
    for module in (index_module, pixels_module):
        monkeypatch.setattr(module, "decode", lambda *_, **__: pytest.fail("decoded again"))
    assert build_catalog(settings, cache).splits == first.splits


def test_a_moved_folder_and_another_cache_split_alike(tmp_path, cache):
    first = build_catalog(Settings(root=fill(tmp_path / "a")), cache)
    shutil.copytree(tmp_path / "a", tmp_path / "deep" / "b")
    second = build_catalog(Settings(root=str(tmp_path / "deep" / "b")), Cache(tmp_path / "other"), workers=2)
    assert names(first) == names(second)


def test_a_grown_folder_keeps_its_splits_and_renews_the_rest(tmp_path, cache):
    settings = Settings(root=fill(tmp_path / "a"))
    first = build_catalog(settings, cache)
    fill(tmp_path / "a", total=50)
    second = build_catalog(settings, cache)
    assert all(set(names(first)[part]) <= set(names(second)[part]) for part in names(first))
    assert [len(second.splits[part]) for part in ("train", "val", "test")] == [35, 10, 5]
    assert second.statistics.pixels > first.statistics.pixels
    assert read_catalog(settings, cache).splits == second.splits


def test_a_changed_file_renews_its_pixels_and_the_statistics(tmp_path, cache):
    settings = Settings(root=fill(tmp_path / "a"))
    first = build_catalog(settings, cache)
    changed = first.splits["train"][3]
    Image.new("RGB", (33, 44), "white").save(changed.path)
    second = build_catalog(settings, cache)
    position = names(second)["train"].index(changed.name)
    np.testing.assert_array_equal(second.store("train")[position], np.full((44, 33, 3), 255))
    assert second.statistics.mean[0] > first.statistics.mean[0]


def test_excluded_pictures_leave_and_all_others_stay(tmp_path, cache):
    root = fill(tmp_path / "a")
    before = names(build_catalog(Settings(root=root), cache))
    out = {before["train"][0], before["val"][1], before["test"][0]}
    (tmp_path / "out.txt").write_text("\n".join(out))
    settings = Settings(root=root, exclude=str(tmp_path / "out.txt"))
    for folder in (cache.folder, tmp_path / "fresh"):  # with a manifest and without one
        after = names(build_catalog(settings, Cache(folder)))
        assert after == {part: [name for name in before[part] if name not in out] for part in before}


def test_a_changed_list_of_exclusions_counts_anew_and_says_so(tmp_path, cache, capsys):
    settings = Settings(root=fill(tmp_path / "a"), exclude=str(tmp_path / "out.csv"))
    whole = build_catalog(Settings(root=settings.root), cache)
    manifests = {path: path.read_bytes() for path in cache.folder.glob("split-*.json")}
    assert manifests
    before = names(whole)
    for gone in (before["train"][:3], [before["val"][0], before["train"][5]], []):
        (tmp_path / "out.csv").write_text("".join(f"{name},0.1\n" for name in ["file", *gone]))
        capsys.readouterr()
        built = build_catalog(settings, cache)
        left = {part: [name for name in before[part] if name not in gone] for part in before}
        assert names(built) == names(read_catalog(settings, cache)) == left
        train = np.concatenate([decode(p.path, 3).reshape(-1, 3) for p in built.splits["train"]]) / 255.0
        np.testing.assert_allclose(built.statistics.mean, train.mean(axis=0), atol=1e-6)
        for position, picture in enumerate(built.splits["val"]):
            np.testing.assert_array_equal(built.store("val")[position], decode(picture.path, 3))
        counts = {part: len(before[part]) - len(left[part]) for part in before}
        told = ", ".join(f"{count} {part}" for part, count in counts.items() if count)
        assert (f"Left out: {told} (--data.exclude" if gone else "") in capsys.readouterr().out
    assert {path: path.read_bytes() for path in cache.folder.glob("split-*.json")} == manifests


def test_excluding_a_whole_part_is_an_error(tmp_path, cache):
    root = fill(tmp_path / "a")
    (tmp_path / "out.txt").write_text("\n".join(names(build_catalog(Settings(root=root), cache))["test"]))
    with pytest.raises(UserError, match="leaves no image for test"):
        build_catalog(Settings(root=root, exclude=str(tmp_path / "out.txt")), cache)


def test_a_whole_folder_can_be_one_part(tmp_path, cache):
    settings = Settings(root=fill(tmp_path / "a", total=2), whole="test")
    build_catalog(settings, cache)
    catalog = read_catalog(settings, cache)
    assert names(catalog) == {"train": [], "val": [], "test": ["000.png", "001.png"]}
    assert catalog.statistics is None
    np.testing.assert_array_equal(catalog.store("test")[1], decode(catalog.splits["test"][1].path, 3))


def test_settings_have_their_effect(tmp_path, cache):
    root = fill(tmp_path / "a")
    gray = build_catalog(Settings(root=root, channels=1, resize=8, statistics_images=2), cache)
    assert gray.statistics.mean.shape == (1,)
    assert min(gray.store("train")[0].shape[:2]) == 8
    assert gray.statistics.pixels < 2 * 8 * 16
    halves = build_catalog(Settings(root=root, fractions=(0.5, 0.25, 0.25)), cache)
    assert [len(pictures) for pictures in halves.splits.values()] == [10, 5, 5]
    assert names(build_catalog(Settings(root=root, split_seed=7), cache)) != names(gray)
    with pytest.raises(UserError, match="20 of 20 images cannot be used"):
        build_catalog(Settings(root=root, min_size=64), cache)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"fractions": (0.7, 0.2, 0.2)}, "--data.fractions"),
        ({"fractions": (0.0, 0.5, 0.5)}, "--data.fractions"),
        ({"fractions": (0.9, 0.1)}, "--data.fractions"),
        ({"channels": 2}, "--data.channels"),
        ({"on_bad_image": "ignore"}, "--data.on_bad_image"),
        ({"resize": 0}, "--data.resize"),
        ({"statistics_images": 0}, "--data.statistics_images"),
    ],
)
def test_impossible_settings_name_their_key(cache, change, key):
    with pytest.raises(UserError, match=key):
        build_catalog(Settings(**change), cache)


def test_every_setting_changes_the_key(tmp_path):
    changes = [
        {}, {"source": "folder"}, {"root": "a"}, {"root": ["a", "b"]}, {"target_root": "a"}, {"exclude": "a"},
        {"channels": 1}, {"resize": 8}, {"min_size": 9}, {"fractions": (0.6, 0.2, 0.2)}, {"split_seed": 1},
        {"on_bad_image": "skip"}, {"statistics_images": 3}, {"decoded_cache_gb": 1.0}, {"whole": "test"},
    ]  # fmt: skip
    assert len({Settings(**change).key for change in changes}) == len(changes)


def test_a_cache_that_cannot_be_made_names_its_key(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--data.cache_dir"):
        build_catalog(Settings(root=fill(tmp_path / "a")), Cache(tmp_path / "file"))
