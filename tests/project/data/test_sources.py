"""The configuration's words lead to the right source; the demo; torchvision's sets, played by classes like them."""

import socket
import urllib.request

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

from project.data import sources
from project.data.images import decode
from project.data.index import index_images
from project.data.sources import PHOTOGRAPHS, find_entries, partners
from workbench.errors import UserError


@pytest.fixture
def find(cache):
    return lambda source="demo", root=None, target_root=None: find_entries(source, root, target_root, cache)


def test_the_demos_photographs_are_there_good_and_half_of_them_in_color(find, cache):
    records = index_images(find(), cache=cache, min_size=256)
    assert [record.name for record in records] == list(PHOTOGRAPHS)
    assert len({record.digest for record in records}) == 12
    assert [bool((decode(r.path, 3).std(axis=2) > 1).any()) for r in records] == [True] * 6 + [False] * 6


def test_a_root_wins_over_the_source_which_may_have_targets(find, tmp_path):
    (tmp_path / "a.png").touch()
    for root in (str(tmp_path), [str(tmp_path)]):
        assert [entry.name for entry in find("CIFAR10", root)] == ["a.png"]
    assert partners("CIFAR10", None, None) is partners("drawings", "images", None) is None
    assert partners("drawings", None, None) == "data.source drawings"
    assert partners("drawings", "images", "colors") == "data.target_root"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("folder",), r"--data.source folder .* need --data.root"),
        (("demo", None, "b"), r"--data.target_root need --data.root"),
        (("folder", ["a", "b"], "c"), "not with several"),
        # An empty name, such as a shell's unset variable: neither the demo's images nor the working directory's.
        (("demo", ""), "an empty name was given"),
        (("demo", "here", ""), "an empty name was given"),
        (("CIFAR1O",), r"--data.source CIFAR1O is unknown. Did you mean CIFAR10\?"),
        (("cifar10",), r"Did you mean CIFAR10\?"),
        (("dem",), r"Did you mean demo\?"),
    ],
)
def test_mistakes_name_their_keys(find, arguments, message):
    with pytest.raises(UserError, match=message):
        find(*arguments)


def pixels(part, number):
    return np.random.default_rng([ord(part[0]), number]).integers(0, 256, (6, 5, 3), dtype=np.uint8)


class ByTrain:
    """Like CIFAR10."""

    made = 0

    def __init__(self, root, train=True, transform=None, target_transform=None, download=False):
        assert download
        ByTrain.made += 1
        self.part = "train" if train else "test"
        self.classes = ["cat", "dog/wolf"]

    def __len__(self):
        return 4 if self.part == "train" else 2

    def __getitem__(self, number):
        return Image.fromarray(pixels(self.part, number)), number % 2


class BySplit(ByTrain):
    """Like Flowers102 (three splits, no class names)."""

    parts = ()

    def __init__(self, root, split="train", download=False):
        if split not in self.parts:
            raise ValueError(f"Unknown value '{split}' for argument split.")
        self.part = split

    def __len__(self):
        return 3


class WithoutSplits(ByTrain):
    """Like EuroSAT."""

    def __init__(self, root, download=False):
        self.part = "x"
        self.classes = ["sea"] * 2


@pytest.fixture
def export(cache, monkeypatch):
    def play(kind, name="CIFAR10"):
        monkeypatch.setattr(torchvision.datasets, name, kind)
        return find_entries(name, None, None, cache)

    return play


def test_train_and_test_are_exported_once_with_their_classes(export, cache):
    entries = export(ByTrain)
    assert [(entry.name, entry.part, entry.tag) for entry in entries] == [
        ("test/cat/000001.png", "test", "cat"),
        ("test/dog_wolf/000002.png", "test", "dog_wolf"),
        ("train/cat/000001.png", "train", "cat"),
        ("train/cat/000003.png", "train", "cat"),
        ("train/dog_wolf/000002.png", "train", "dog_wolf"),
        ("train/dog_wolf/000004.png", "train", "dog_wolf"),
    ]
    np.testing.assert_array_equal(decode(entries[3].path, 3), pixels("train", 2))
    assert entries[0].path.startswith(str(cache.path("CIFAR10")))
    made = ByTrain.made
    assert export(ByTrain) == entries
    assert ByTrain.made == made


@pytest.mark.parametrize(
    ("kind", "names", "parts", "tags"),
    [
        (BySplit, ("train", "val", "test"), ["test"] * 3 + ["train"] * 3 + ["val"] * 3, {"0000", "0001"}),
        (BySplit, ("trainval", "test"), ["test"] * 3 + ["train"] * 3, {"0000", "0001"}),  # like OxfordIIITPet
        (WithoutSplits, (), ["all"] * 2, {"sea"}),
    ],
)
def test_splits_by_other_names_and_none(export, monkeypatch, kind, names, parts, tags):
    monkeypatch.setattr(BySplit, "parts", names)
    entries = export(kind, "Flowers102")
    assert [entry.part for entry in entries] == parts
    assert {entry.tag for entry in entries} == tags


def test_no_network_or_a_silent_server_names_the_ways_out_and_leaves_nothing_half_done(export, cache, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(sources, "SERVER_TIMEOUT", 0.2)
        for port, reason in ((9, "refused"), (silent.getsockname()[1], "timed out")):

            class Downloading:
                def __init__(self, root, train=True, download=False, port=port):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/cifar.tar.gz")

            with pytest.raises(
                UserError, match=rf"CIFAR10 is not available: .*{reason}(.|\n)*--data.root FOLDER"
            ) as error:
                export(Downloading)
            assert str(cache.path("torchvision")) in str(error.value)
    assert [path.name for path in cache.folder.iterdir()] == ["torchvision"]
    assert socket.getdefaulttimeout() is None


def test_a_damaged_sample_and_a_set_of_something_else_are_refused(export, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(ByTrain, "__getitem__", lambda self, number: Image.open(tmp_path / "gone.jpg"))
    with pytest.raises(UserError, match=r"CIFAR10: its sample 0 cannot be read as an image .*gone.jpg"):
        export(ByTrain)
    monkeypatch.setattr(ByTrain, "__getitem__", lambda self, number: (np.zeros((2, 2)), 0))
    with pytest.raises(UserError, match=r"sample 0 cannot be read as an image .*ndarray"):
        export(ByTrain)
    assert not cache.path("CIFAR10").exists()


@pytest.mark.parametrize("name", ["CIFAR10", "QMNIST", "EuroSAT", "OxfordIIITPet", "Flowers102"])
def test_the_real_classes_take_these_arguments(find, monkeypatch, name):
    def download(self):
        raise OSError("reached")

    kind = getattr(torchvision.datasets, name)
    monkeypatch.setattr(kind, "download" if hasattr(kind, "download") else "_download", download)
    with pytest.raises(UserError, match="is not available: reached"):
        find(name)
