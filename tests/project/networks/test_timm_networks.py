"""Backbones of timm: their stages and weights, and what is told where they cannot be had."""

from __future__ import annotations

import sys

import pytest
import timm
import torch
from project.networks.pretrained import find_stages, load_pretrained
from safetensors.torch import save_file

from project.networks import BackboneUNet
from workbench.errors import UserError
from workbench.pretrained import skip_pretrained_download

NAME = "mobilenetv3_small_050"


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(1)
    return timm.create_model(NAME).eval()


@pytest.mark.parametrize("name", [NAME, "resnet10t", "convnext_atto", "efficientvit_b0"])
def test_no_stage_that_timm_names_is_missing(name):
    found = load_pretrained(f"timm:{name}", "none")
    reductions = timm.create_model(name, features_only=True).feature_info.reduction()
    stages = find_stages(found.network)
    assert set(stages) >= set(reductions) and list(stages) == sorted(stages)
    kept = BackboneUNet(f"timm:{name}", "none", in_channels=4, widths=[4] * 6).encoder(torch.rand(1, 4, 64, 96))
    assert {int(stride): tuple(h.shape[2:]) for stride, h in kept.items()} == {s: (64 // s, 96 // s) for s in stages}


@pytest.mark.parametrize(
    "name", [NAME, "tf_mobilenetv3_small_minimal_100"]
)  # of the second, convolutions pad as they go
def test_a_network_of_timm_learns_and_takes_any_size(name):
    torch.manual_seed(0)
    network = BackboneUNet(f"timm:{name}", "none", in_channels=5, out_channels=2, widths=[4] * 6)
    network(torch.rand(2, 5, 64, 96)).mean().backward()
    assert all(p.grad is not None for p in network.parameters())
    stages = network.encoder_stages()
    assert len(stages) == 5 and all(stages)
    assert {n for n, _ in network.encoder.named_parameters()} == {
        n for n, _ in network.encoder.named_parameters() if any(f"encoder.{n}".startswith(p) for s in stages for p in s)
    }
    assert network.eval()(torch.rand(1, 5, 33, 70)).shape == (1, 2, 33, 70)


def test_the_normalisation_is_the_weights_own():
    imagenet, half = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]), ([0.5] * 3, [0.5] * 3)
    for name, expected in ((NAME, imagenet), ("tf_mobilenetv3_small_minimal_100", half)):
        found = load_pretrained(f"timm:{name}", "none")
        assert (found.mean, found.std) == expected and not found.trained


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_a_file_gives_its_weights(network, tmp_path, ending):
    path = tmp_path / f"weights{ending}"
    (torch.save if ending == ".pth" else save_file)(network.state_dict(), path)
    found = load_pretrained(f"timm:{NAME}", str(path))
    x = torch.rand(2, 3, 40, 56)
    torch.testing.assert_close(found.network(x), network(x))
    assert found.trained


def test_a_file_that_does_not_fit_lists_what_is_wrong(network, tmp_path):
    state = dict(network.state_dict())
    state["stranger.weight"] = state.pop("conv_stem.weight")
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"1 missing: conv_stem\.weight\n  1 surplus: stranger\.weight\n.*timm's"):
        load_pretrained(f"timm:{NAME}", str(tmp_path / "weights.pth"))
    (tmp_path / "weights.safetensors").write_bytes(b"none")
    with pytest.raises(UserError, match=r"weights\.safetensors cannot be read"):
        load_pretrained(f"timm:{NAME}", str(tmp_path / "weights.safetensors"))


@pytest.fixture
def asked(monkeypatch, network, tmp_path):
    """Hugging Face's client gets what lies in a folder here; what is asked for is noted."""
    import huggingface_hub.errors
    from timm.models import _hub

    save_file(network.state_dict(), tmp_path / "model.safetensors")
    names: list[tuple[str, str]] = []

    def download(repo_id: str, filename: str, **_) -> str:
        names.append((repo_id, filename))
        if not (tmp_path / filename).is_file():
            raise huggingface_hub.errors.LocalEntryNotFoundError("no network")
        return str(tmp_path / filename)

    monkeypatch.setattr(_hub, "hf_hub_download", download)
    return names


@pytest.mark.parametrize("weights", ["DEFAULT", "lamb_in1k"])
def test_weights_are_downloaded(asked, network, weights):
    found = load_pretrained(f"timm:{NAME}", weights)
    x = torch.rand(1, 3, 40, 56)
    torch.testing.assert_close(found.network(x), network(x))
    assert asked[0] == (f"timm/{NAME}.lamb_in1k", "model.safetensors") and found.trained


def test_a_failing_download_says_the_way_out(asked, tmp_path):
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError) as error:
        load_pretrained(f"timm:{NAME}", "DEFAULT")
    for part in ("no network", f"https://huggingface.co/timm/{NAME}.lamb_in1k", "weights: FILE", "weights: none"):
        assert part in str(error.value)


def test_a_checkpoint_that_follows_asks_for_nothing(asked):
    with skip_pretrained_download():
        assert load_pretrained(f"timm:{NAME}", "DEFAULT").trained
    assert not asked


@pytest.mark.parametrize(
    ("name", "weights", "words"),
    [
        ("mobilenetv3_smal_050", "none", f"Did you mean timm:{NAME}"),
        (NAME, "lamb_in2k", "Did you mean 'lamb_in1k'"),
        ("vit_tiny_patch16_224", "none", "does not keep an image"),
    ],
)
def test_a_mistake_is_named(name, weights, words):
    with pytest.raises(UserError, match=words) as error:
        BackboneUNet(f"timm:{name}", weights)
    assert len(str(error.value)) < 500


def test_the_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"pip install '\.\[timm\]'"):
        load_pretrained(f"timm:{NAME}", "none")
