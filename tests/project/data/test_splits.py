"""Exact, reproducible, apart; and an earlier deal holds."""

import random

import pytest

from project.data.images import ImageRecord
from project.data.splits import PARTS, exact_counts, split_pictures
from workbench.errors import UserError


def picture(number, digest=None, part="all", place="/here"):
    name = f"{number:04}.png"
    return ImageRecord(f"{place}/{name}", name, 8, 8, digest or f"digest {number}", part=part)


def pictures(total, **options):
    return [picture(number, **options) for number in range(total)]


def names(splits):
    return {part: [p.name for p in splits[part]] for part in PARTS}


def place_of(splits):
    return {p.name: part for part in PARTS for p in splits[part]}


@pytest.mark.parametrize("total", range(3, 201))
def test_exact_to_one_picture_and_complete(total):
    splits = split_pictures(pictures(total))
    counts = [len(splits[part]) for part in PARTS]
    assert sum(counts) == total
    assert len(place_of(splits)) == total
    assert min(counts) >= 1
    if total > 3:  # of three images, each part needs one
        for count, fraction in zip(counts, (0.7, 0.2, 0.1), strict=True):
            assert abs(count - fraction * total) < 1 + 1e-9


@pytest.mark.parametrize(("total", "counts"), [(10, (7, 2, 1)), (100, (70, 20, 10)), (12, (9, 2, 1)), (3, (1, 1, 1))])
def test_known_counts(total, counts):
    assert tuple(exact_counts(total, {"train": 0.7, "val": 0.2, "test": 0.1}).values()) == counts


def test_a_share_of_nought_stays_empty():
    splits = split_pictures(pictures(10), fractions=(0.8, 0.2, 0))
    assert [len(splits[part]) for part in PARTS] == [8, 2, 0]


def test_listing_order_and_place_do_not_matter():
    expected = names(split_pictures(pictures(57)))
    for seed in range(5):
        shuffled = pictures(57, place="/elsewhere")
        random.Random(seed).shuffle(shuffled)
        assert names(split_pictures(shuffled)) == expected


def test_the_deal_is_pinned():
    """Should this change, every user's splits change with the next version."""
    splits = split_pictures(pictures(10))
    assert [p.name for p in splits["test"]] == ["0005.png"]
    assert [p.name for p in splits["val"]] == ["0000.png", "0009.png"]


def test_the_seed_matters():
    assert names(split_pictures(pictures(57), seed=1)) != names(split_pictures(pictures(57), seed=2))


@pytest.mark.parametrize("seed", range(20))
def test_copies_stay_together_and_counts_stay_exact(seed):
    group = [picture(number, digest=f"copy {number % 5}") for number in range(20)] + [
        picture(number) for number in range(20, 60)
    ]
    splits = split_pictures(group, seed=seed)
    assert [len(splits[part]) for part in PARTS] == [42, 12, 6]
    for number in range(5):
        assert len({part for part in PARTS for p in splits[part] if p.digest == f"copy {number}"}) == 1


def test_copies_never_leave_a_part_empty():
    for seed in range(20):
        group = [picture(n, digest=d) for n, d in enumerate(["a", "a", "b", "b", "c"])]
        assert min(map(len, split_pictures(group, seed=seed).values())) >= 1


@pytest.mark.parametrize("total", [1, 2])
def test_too_few_pictures(total):
    with pytest.raises(UserError, match=f"{total} images are too few: 3 are needed"):
        split_pictures(pictures(total))


def test_too_few_different_pictures():
    with pytest.raises(UserError, match="4 images, 2 of them different are too few"):
        split_pictures([picture(n, digest=str(n % 2)) for n in range(4)])


def test_a_grown_folder_keeps_every_earlier_picture_in_its_part(tmp_path):
    manifest = tmp_path / "split.json"
    known = {}
    for total in (10, 11, 40, 41, 200, 1000):
        splits = split_pictures(pictures(total), manifest=manifest)
        now = place_of(splits)
        assert {name: now[name] for name in known} == known
        assert len(now) == total
        if total >= 40:
            assert [len(splits[part]) for part in PARTS] == pytest.approx(
                [0.7 * total, 0.2 * total, 0.1 * total], abs=1
            )
        known = now


def test_without_its_manifest_a_grown_folder_is_dealt_anew():
    small, large = (place_of(split_pictures(pictures(total))) for total in (20, 200))
    assert any(large[name] != part for name, part in small.items())


def test_a_folder_that_grew_and_moved_keeps_its_parts(tmp_path):
    """Known by its content: every image of the earlier deal is here."""
    split_pictures(pictures(20), manifest=tmp_path / "split-shares-one.json")
    grown = place_of(split_pictures(pictures(200), manifest=tmp_path / "split-shares-one.json"))
    moved = split_pictures(pictures(210, place="/elsewhere"), manifest=tmp_path / "split-shares-two.json")
    assert {name: part for name, part in place_of(moved).items() if name in grown} == grown
    assert [len(moved[part]) for part in PARTS] == [147, 42, 21]


def test_a_part_of_another_folder_or_other_shares_are_dealt_exactly(tmp_path):
    split_pictures(pictures(200), manifest=tmp_path / "split-shares-one.json")
    few = split_pictures(pictures(50), manifest=tmp_path / "split-shares-two.json")
    assert names(few) == names(split_pictures(pictures(50)))
    other = split_pictures(pictures(200), seed=7, manifest=tmp_path / "split-others-one.json")
    assert names(other) == names(split_pictures(pictures(200), seed=7))


def test_the_manifest_remembers_pictures_that_were_gone_for_a_while(tmp_path):
    manifest = tmp_path / "split.json"
    first = place_of(split_pictures(pictures(50), manifest=manifest))
    split_pictures(pictures(30), manifest=manifest)
    assert place_of(split_pictures(pictures(50), manifest=manifest)) == first


def test_a_renamed_picture_and_a_changed_one_keep_their_part(tmp_path):
    manifest = tmp_path / "split.json"
    first = split_pictures(pictures(30), manifest=manifest)
    test_picture, val_picture = first["test"][0], first["val"][0]
    changed = [p for p in pictures(30) if p.name not in (test_picture.name, val_picture.name)]
    changed.append(ImageRecord("/here/renamed.png", "renamed.png", 8, 8, test_picture.digest))
    changed.append(ImageRecord(val_picture.path, val_picture.name, 8, 8, "new content"))
    second = place_of(split_pictures(changed, manifest=manifest))
    assert second["renamed.png"] == "test"
    assert second[val_picture.name] == "val"


def test_a_new_copy_of_a_known_picture_joins_it(tmp_path):
    manifest = tmp_path / "split.json"
    first = split_pictures(pictures(30), manifest=manifest)
    copy = picture(999, digest=first["test"][0].digest)
    assert copy in split_pictures([*pictures(30), copy], manifest=manifest)["test"]


def test_a_part_that_lost_all_its_pictures_is_filled_or_said(tmp_path):
    manifest = tmp_path / "split.json"
    first = split_pictures(pictures(10), manifest=manifest)
    left = first["train"] + first["val"]
    with pytest.raises(UserError, match=r"No image is left for test.*split.json"):
        split_pictures(left, manifest=manifest)
    new = picture(500)
    assert split_pictures([*left, new], manifest=manifest)["test"] == [new]


def test_a_damaged_manifest_is_said_and_made_anew(tmp_path):
    manifest = tmp_path / "split.json"
    first = names(split_pictures(pictures(10), manifest=manifest))
    manifest.write_text("{")
    with pytest.warns(UserWarning, match=r"split.json is damaged"):
        assert names(split_pictures(pictures(10), manifest=manifest)) == first


def test_ready_made_parts_are_respected():
    given = [picture(n, part=PARTS[n % 3]) for n in range(9)]
    assert place_of(split_pictures(given)) == {p.name: p.part for p in given}


def test_a_missing_part_is_cut_from_training():
    given = [picture(n, part="train" if n < 90 else "test") for n in range(100)]
    splits = split_pictures(given, seed=1)
    assert [p.name for p in splits["test"]] == [p.name for p in given[90:]]
    assert [len(splits[part]) for part in PARTS] == [70, 20, 10]  # 90 in the ratio of 7 to 2
    assert names(split_pictures(given[::-1], seed=1)) == names(splits)


def test_copies_across_ready_made_parts_are_warned_of():
    given = [picture(n, part=PARTS[n % 3]) for n in range(9)] + [picture(50, digest="digest 0", part="test")]
    with pytest.warns(UserWarning, match=r"(?s)1 images lie byte for byte.*0000.png = 0050.png"):
        split_pictures(given)


def test_copies_that_are_left_out_are_not_warned_of(recwarn):
    given = [picture(n, part=PARTS[n % 3]) for n in range(9)] + [picture(50, digest="digest 0", part="test")]
    splits = split_pictures(given, excluded={"0050.png"})
    assert not recwarn.list
    assert sum(map(len, splits.values())) == 10


def test_ready_made_parts_without_a_training_picture_are_refused():
    with pytest.raises(UserError, match="all 6 that can be used lie in the ready-made val and test"):
        split_pictures([picture(n, part=PARTS[1 + n % 2]) for n in range(6)])


def test_pictures_without_a_part_among_ready_made_ones_are_training_pictures(capsys):
    splits = split_pictures([*pictures(9), picture(50, part="val"), picture(51, part="test")])
    assert [len(splits[part]) for part in PARTS] == [9, 1, 1]
    assert "9 images come from folders without ready-made parts" in capsys.readouterr().out
