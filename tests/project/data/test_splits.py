"""Exact, reproducible, apart; and an earlier split holds."""

import random

import pytest

from project.data.images import ImageRecord
from project.data.splits import PARTS, split_images
from workbench.errors import UserError


def record(number, digest=None, part="all", place="/here"):
    name = f"{number:04}.png"
    return ImageRecord(f"{place}/{name}", name, digest=digest or f"digest {number}", part=part)


def records(total, **options):
    return [record(number, **options) for number in range(total)]


def names(splits):
    return {part: [r.name for r in splits[part]] for part in PARTS}


def place_of(splits):
    return {r.name: part for part in PARTS for r in splits[part]}


def counts(splits):
    return [len(splits[part]) for part in PARTS]


def test_exact_to_one_image_and_complete():
    for total in range(3, 201):
        splits = split_images(records(total))
        assert sum(counts(splits)) == len(place_of(splits)) == total
        assert min(counts(splits)) >= 1
        if total > 3:  # of three images, each split needs one
            for count, fraction in zip(counts(splits), (0.7, 0.2, 0.1), strict=True):
                assert abs(count - fraction * total) < 1 + 1e-9
    assert counts(split_images(records(10), fractions=(0.8, 0.2, 0))) == [8, 2, 0]


def test_listing_order_and_place_do_not_matter_and_the_seed_does():
    expected = names(split_images(records(57)))
    for seed in range(5):
        shuffled = records(57, place="/elsewhere")
        random.Random(seed).shuffle(shuffled)
        assert names(split_images(shuffled)) == expected
    assert names(split_images(records(57), seed=1)) != names(split_images(records(57), seed=2))


def test_the_split_is_pinned():
    """Should this change, every user's splits change with the next version."""
    splits = split_images(records(10))
    assert [r.name for r in splits["test"]] == ["0005.png"]
    assert [r.name for r in splits["val"]] == ["0000.png", "0009.png"]


@pytest.mark.parametrize("seed", range(20))
def test_copies_stay_together_and_counts_stay_exact(seed):
    group = [record(number, digest=f"copy {number % 5}") for number in range(20)]
    splits = split_images(group + [record(number) for number in range(20, 60)], seed=seed)
    assert counts(splits) == [42, 12, 6]
    for number in range(5):
        assert len({part for part in PARTS for r in splits[part] if r.digest == f"copy {number}"}) == 1
    few = [record(number, digest=digest) for number, digest in enumerate("aabbc")]
    assert min(counts(split_images(few, seed=seed))) >= 1


@pytest.mark.parametrize("given", [records(2), [record(n, digest=str(n % 2)) for n in range(4)]])
def test_too_few_images(given):
    with pytest.raises(UserError, match="2 different images are too few"):
        split_images(given)


def test_a_grown_folder_keeps_every_earlier_image_in_its_split(tmp_path):
    known = {}
    for total in (10, 11, 40, 41, 200, 1000):
        splits = split_images(records(total), file=tmp_path / "split.json")
        now = place_of(splits)
        assert {name: now[name] for name in known} == known
        assert len(now) == total
        if total >= 40:
            assert counts(splits) == pytest.approx([0.7 * total, 0.2 * total, 0.1 * total], abs=1)
        known = now
    assert place_of(split_images(records(1000))) != known  # without its file


def test_a_folder_that_grew_and_moved_keeps_its_splits(tmp_path):
    """Known by its content: every image of the earlier split is here."""
    split_images(records(20), file=tmp_path / "split-shares-one.json")
    grown = place_of(split_images(records(200), file=tmp_path / "split-shares-one.json"))
    moved = split_images(records(210, place="/elsewhere"), file=tmp_path / "split-shares-two.json")
    assert {name: part for name, part in place_of(moved).items() if name in grown} == grown
    assert counts(moved) == [147, 42, 21]


def test_a_part_of_another_folder_or_other_shares_are_split_exactly(tmp_path):
    split_images(records(200), file=tmp_path / "split-shares-one.json")
    few = split_images(records(50), file=tmp_path / "split-shares-two.json")
    assert names(few) == names(split_images(records(50)))
    other = split_images(records(200), seed=7, file=tmp_path / "split-others-one.json")
    assert names(other) == names(split_images(records(200), seed=7))


def test_renamed_changed_and_copied_images_keep_their_split(tmp_path):
    first = split_images(records(30), file=tmp_path / "split.json")
    split_images(records(20), file=tmp_path / "split.json")  # images that were gone for a while are remembered
    assert names(split_images(records(30), file=tmp_path / "split.json")) == names(first)
    test, val = first["test"][0], first["val"][0]
    now = [r for r in records(30) if r.name not in (test.name, val.name)]
    now.append(ImageRecord("/here/renamed.png", "renamed.png", digest=test.digest))
    now.append(ImageRecord(val.path, val.name, digest="new content"))
    now.append(record(999, digest=first["test"][1].digest))
    second = place_of(split_images(now, file=tmp_path / "split.json"))
    assert (second["renamed.png"], second[val.name], second["0999.png"]) == ("test", "val", "test")


def test_a_split_that_lost_all_its_images_is_filled_or_reported(tmp_path):
    first = split_images(records(10), file=tmp_path / "split.json")
    left = first["train"] + first["val"]
    with pytest.raises(UserError, match=r"No image is left for test.*split.json"):
        split_images(left, file=tmp_path / "split.json")
    new = record(500)
    assert split_images([*left, new], file=tmp_path / "split.json")["test"] == [new]


def test_a_damaged_file_is_reported_and_made_anew(tmp_path):
    first = names(split_images(records(10), file=tmp_path / "split.json"))
    (tmp_path / "split.json").write_text("{")
    with pytest.warns(UserWarning, match=r"split.json is damaged"):
        assert names(split_images(records(10), file=tmp_path / "split.json")) == first


def test_ready_made_splits_are_respected_and_a_missing_one_is_cut_from_training():
    given = [record(n, part=PARTS[n % 3]) for n in range(9)]
    assert place_of(split_images(given)) == {r.name: r.part for r in given}
    given = [record(n, part="train" if n < 90 else "test") for n in range(100)]
    splits = split_images(given)
    assert [r.name for r in splits["test"]] == [r.name for r in given[90:]]
    assert counts(splits) == [70, 20, 10]  # 90 in the ratio of 7 to 2
    assert names(split_images(given[::-1])) == names(splits)
    splits = split_images([*records(9), record(50, part="val"), record(51, part="test")])
    assert counts(splits) == [9, 1, 1]  # folders without splits of their own are for training
    with pytest.raises(UserError, match="all 6 usable ones lie in the ready-made val and test"):
        split_images([record(n, part=PARTS[1 + n % 2]) for n in range(6)])
