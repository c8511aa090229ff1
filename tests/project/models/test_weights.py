import pytest
import torch
from project.models.weights import load_adversary, load_matching

from project.networks import UNet
from workbench.errors import UserError


def tiny(**options) -> UNet:
    return UNet(**{"width": 4, "depth": 1, "norm": "none", **options})


def test_everything_fits_a_twin(tmp_path):
    source, twin = tiny(), tiny()
    source.normalize_input.set(0.25, 0.5)
    torch.save({"state_dict": {f"network.{k}": v for k, v in source.state_dict().items()}}, tmp_path / "a.ckpt")
    report = load_matching(twin, str(tmp_path / "a.ckpt"))
    assert all(torch.equal(a, b) for a, b in zip(source.state_dict().values(), twin.state_dict().values(), strict=True))
    assert len(report.splitlines()) == 1


def test_a_denoiser_of_colors_begins_a_colorist_of_gray_pictures_and_hints(tmp_path):
    source, other = tiny(), tiny(in_channels=5, out_channels=2, residual=False)
    torch.save(source.state_dict(), tmp_path / "a.pt")
    report = load_matching(other, str(tmp_path / "a.pt"))
    assert "1 taken, adapted to the input's channels: head.weight" in report
    assert "of another shape, not taken: " in report and "tail.weight" in report
    gray = torch.rand(2, 1, 9, 14)
    hinted = torch.cat([gray, torch.rand(2, 4, 9, 14)], dim=1)
    torch.testing.assert_close(other.head(hinted), source.head(gray.expand(-1, 3, -1, -1)))


def test_what_fits_is_taken_from_a_plain_state_and_the_rest_is_told(tmp_path):
    source, other = tiny(in_channels=5), tiny(in_channels=4)
    torch.save(source.state_dict(), tmp_path / "a.pt")
    head = other.head.weight.clone()
    report = load_matching(other, str(tmp_path / "a.pt"))
    assert torch.equal(other.tail.weight, source.tail.weight)
    assert torch.equal(other.head.weight, head)
    count = len(list(other.parameters()))
    assert f"{count - 1} of {count} parameters taken" in report
    assert "of another shape, not taken: " in report and "head.weight" in report


def test_a_generator_is_found_and_its_discriminator_is_not_mistaken_for_it(tmp_path):
    source, adversary, twin = tiny(), tiny(), tiny()
    state = {f"discriminator.{k}": v for k, v in adversary.state_dict().items()}
    state |= {f"generator.{k}": v for k, v in source.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "a.ckpt")
    assert "only in the checkpoint" not in load_matching(twin, str(tmp_path / "a.ckpt"))
    assert torch.equal(twin.head.weight, source.head.weight)
    other = tiny(in_channels=4)
    kept = other.head.weight.clone()
    report = load_adversary(other, str(tmp_path / "a.ckpt"))
    assert torch.equal(other.tail.weight, adversary.tail.weight) and torch.equal(other.head.weight, kept)
    assert "discriminator: " in report and "of another shape, not taken: " in report


def test_a_checkpoint_without_a_discriminator_leaves_it_as_it_is(tmp_path, capsys):
    torch.save({f"network.{k}": v for k, v in tiny().state_dict().items()}, tmp_path / "a.pt")
    other = tiny()
    kept = other.head.weight.clone()
    assert load_adversary(other, str(tmp_path / "a.pt")) == ""
    assert torch.equal(other.head.weight, kept) and not capsys.readouterr().out


def test_mistakes_are_told(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        load_matching(tiny(), str(tmp_path / "none.ckpt"))
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    with pytest.raises(UserError, match="not a checkpoint"):
        load_matching(tiny(), str(tmp_path / "text.ckpt"))
    torch.save({"state_dict": {"network.other": torch.zeros(1)}}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match=r"nothing in .* fits"):
        load_matching(tiny(), str(tmp_path / "other.ckpt"))


class Foreign:
    """Would run a function while it is read."""

    def __reduce__(self):
        return (print, ("ran",))


def test_foreign_objects_are_not_run_and_nobody_is_told_to(tmp_path, capsys):
    torch.save({"state_dict": {}, "more": Foreign()}, tmp_path / "foreign.ckpt")
    with pytest.raises(UserError, match=r"foreign\.ckpt is not a checkpoint, or holds more .* for safety") as caught:
        load_matching(tiny(), str(tmp_path / "foreign.ckpt"))
    assert "weights_only" not in str(caught.value) and "ran" not in capsys.readouterr().out


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_file_that_is_cut_short_is_told(tmp_path, share):
    path = tmp_path / "cut.ckpt"
    torch.save({"state_dict": tiny().state_dict()}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"init_from: .*cut\.ckpt cannot be read .*cut short") as caught:
        load_matching(tiny(), str(path))
    assert len(str(caught.value)) < 400
