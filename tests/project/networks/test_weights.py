"""Weights out of files: what is read, what fits, and what is reported where it does not."""

import pytest
import torch

from project.networks import UNet
from project.networks.weights import load_matching, read_weights
from workbench.errors import UserError


def tiny(**options) -> UNet:
    return UNet(**{"widths": [4, 8], "norm": "none", **options})


def prefixed(prefix: str, network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": value for name, value in network.state_dict().items()}


class Foreign:
    """Would run a function while it is read."""

    def __reduce__(self):
        return (print, ("ran",))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.ckpt", None, "there is no file"),
        ("empty.ckpt", b"", "cannot be read"),
        ("foreign.ckpt", {"state_dict": {}, "more": Foreign()}, "(?s)cannot be read.*for safety"),
        ("other.ckpt", {"epoch": 3}, "holds no weights"),
    ],
)
def test_files_that_are_no_weights(tmp_path, capsys, name, content, words):
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content is not None:
        torch.save(content, tmp_path / name)
    with pytest.raises(UserError, match=words) as caught:
        read_weights(tmp_path / name, "model.init_from")
    assert str(caught.value).startswith("model.init_from: ") and "weights_only" not in str(caught.value)
    assert "ran" not in capsys.readouterr().out


def test_a_denoiser_of_colors_begins_a_colorizer_of_gray_images_and_hints(tmp_path):
    source, other = tiny(), tiny(in_channels=5, out_channels=2)
    torch.save(source.state_dict(), tmp_path / "a.pt")
    report = load_matching(other, str(tmp_path / "a.pt"), "network.")
    count = len(list(other.parameters()))
    assert f"{count - 2} of {count} parameters loaded" in report
    assert "1 adapted to the input's channels: head.weight\n" in report
    assert "2 missing there or of another shape, left as initialized: tail.weight, tail.bias" in report
    gray = torch.rand(2, 1, 9, 14)
    hinted = torch.cat([gray, torch.rand(2, 4, 9, 14)], dim=1)
    torch.testing.assert_close(other.head(hinted), source.head(gray.expand(-1, 3, -1, -1)))


def test_a_generator_is_found_and_its_discriminator_is_not_mistaken_for_it(tmp_path):
    source, twin = tiny(), tiny()
    state = prefixed("discriminator.", tiny()) | prefixed("generator.", source)
    torch.save({"state_dict": state}, tmp_path / "a.ckpt")
    assert "only in the checkpoint" not in load_matching(twin, str(tmp_path / "a.ckpt"), "network.", "generator.")
    assert torch.equal(twin.head.weight, source.head.weight)


def test_nothing_that_fits_is_an_error(tmp_path):
    torch.save({"state_dict": {"network.other": torch.zeros(1)}}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match=r"nothing in .* fits"):
        load_matching(tiny(), str(tmp_path / "other.ckpt"), "network.")
