"""torchvision's sets, played by classes that behave like them: no network."""

import socket
import urllib.error
import urllib.request

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

from project.data import vision
from project.data.cache import Cache
from project.data.images import decode
from project.data.vision import Torchvision, dataset_names
from workbench.errors import UserError


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


class ByInheritedTrain(ByTrain):
    """Like QMNIST: hands its arguments on."""

    def __init__(self, root, what=None, **kwargs):
        super().__init__(root, **kwargs)


class BySplit(ByTrain):
    """Like Flowers102 (three parts, no class names) or OxfordIIITPet (trainval)."""

    parts = ("train", "val", "test")

    def __init__(self, root, split="train", download=False):
        if split not in self.parts:
            raise ValueError(f"Unknown value '{split}' for argument split.")
        self.part = split

    def __len__(self):
        return 3


class WithoutParts(BySplit):
    """Like EuroSAT."""

    def __init__(self, root, download=False):
        self.part = "x"
        self.classes = ["sea"] * 2


class Offline:
    def __init__(self, root, train=True, download=False):
        raise urllib.error.URLError("no route to host")


class Tensors(ByTrain):
    def __getitem__(self, number):
        return np.zeros((2, 2)), 0


@pytest.fixture
def export(tmp_path, monkeypatch):
    def play(kind, name="CIFAR10"):
        monkeypatch.setattr(torchvision.datasets, name, kind)
        return Torchvision(name, Cache(tmp_path / "cache")).find()

    return play


def test_names_are_torchvisions():
    assert {"CIFAR10", "Flowers102", "MNIST", "OxfordIIITPet"} <= set(dataset_names())
    assert not {"wrap_dataset_for_transforms_v2", "FakeData", "ImageFolder"} & set(dataset_names())


@pytest.mark.parametrize("kind", [ByTrain, ByInheritedTrain])
def test_train_and_test_are_exported_with_their_classes(export, tmp_path, kind):
    entries = export(kind)
    assert [(entry.name, entry.part, entry.tag) for entry in entries] == [
        ("test/cat/000001.png", "test", "cat"),
        ("test/dog_wolf/000002.png", "test", "dog_wolf"),
        ("train/cat/000001.png", "train", "cat"),
        ("train/cat/000003.png", "train", "cat"),
        ("train/dog_wolf/000002.png", "train", "dog_wolf"),
        ("train/dog_wolf/000004.png", "train", "dog_wolf"),
    ]
    np.testing.assert_array_equal(decode(entries[3].path, 3), pixels("train", 2))
    assert entries[0].path.startswith(str(tmp_path / "cache" / "CIFAR10"))


def test_the_second_time_nothing_is_opened(export):
    first = export(ByTrain)
    made = ByTrain.made
    assert export(ByTrain) == first
    assert ByTrain.made == made


def test_parts_by_name(export):
    parts = [entry.part for entry in export(BySplit, "Flowers102")]
    assert parts == ["test"] * 3 + ["train"] * 3 + ["val"] * 3


def test_other_names_of_the_parts(export):
    class Pets(BySplit):
        parts = ("trainval", "test")

    entries = export(Pets, "OxfordIIITPet")
    assert [entry.part for entry in entries] == ["test"] * 3 + ["train"] * 3
    assert entries[0].tag == "0000"


def test_a_set_without_parts_is_one(export):
    entries = export(WithoutParts, "EuroSAT")
    assert [entry.part for entry in entries] == ["all"] * 3
    assert {entry.tag for entry in entries} == {"sea"}


def test_no_network_says_three_ways_out_and_leaves_nothing_half_done(export, tmp_path):
    with pytest.raises(UserError, match=r"CIFAR10 could not be had: .*no route to host") as error:
        export(Offline)
    assert str(tmp_path / "cache" / "torchvision") in str(error.value)
    assert "--data.root FOLDER" in str(error.value)
    assert len(str(error.value).splitlines()) <= 10
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["torchvision"]


def test_a_server_that_never_answers_is_given_up(export, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:

        class Silent:
            def __init__(self, root, train=True, download=False):
                urllib.request.urlopen(f"http://127.0.0.1:{silent.getsockname()[1]}/cifar.tar.gz")

        monkeypatch.setattr(vision, "PATIENCE", 0.2)
        with pytest.raises(UserError, match=r"CIFAR10 could not be had: .*timed out"):
            export(Silent)
    assert socket.getdefaulttimeout() is None


def test_a_damaged_sample_is_said(export, tmp_path, monkeypatch):
    monkeypatch.setattr(ByTrain, "__getitem__", lambda self, number: Image.open(tmp_path / "gone.jpg"))
    with pytest.raises(UserError, match=r"CIFAR10 could not be had: its sample 0 cannot be read .*gone.jpg"):
        export(ByTrain)
    assert not (tmp_path / "cache" / "CIFAR10").exists()


def test_an_interrupted_export_is_begun_anew(export, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(ByTrain, "__getitem__", lambda self, number: interrupt())
        with pytest.raises(KeyboardInterrupt):
            export(ByTrain)
    assert not (tmp_path / "cache" / "CIFAR10").exists()
    assert len(export(ByTrain)) == 6


def interrupt():
    raise KeyboardInterrupt


def test_a_set_of_something_else_is_refused(export):
    with pytest.raises(UserError, match="gives ndarray where an image is needed"):
        export(Tensors)


def test_the_real_classes_say_by_which_argument_they_name_their_parts():
    from torchvision import datasets

    assert {"train", "download"} <= vision._arguments(datasets.CIFAR10)
    assert {"train", "download"} <= vision._arguments(datasets.QMNIST)
    assert {"split", "download"} <= vision._arguments(datasets.Flowers102)
    assert "image_set" in vision._arguments(datasets.VOCSegmentation)
    assert not {"train", "split"} & vision._arguments(datasets.EuroSAT)
