from __future__ import annotations

import http.server
import threading

import pytest
import torch
from project.networks.pretrained import adapt_input, find_stages, input_statistics, load_pretrained
from torch import nn
from torchvision.models import MobileNet_V3_Small_Weights, get_model

from workbench.errors import UserError

NAME = "mobilenet_v3_small"


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(1)
    return get_model(NAME, weights=None).eval()


def first_convolution(network: nn.Module) -> nn.Conv2d:
    return next(part for part in network.modules() if isinstance(part, nn.Conv2d))


def test_a_file_gives_its_weights(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    found = load_pretrained(NAME, str(tmp_path / "weights.pth"))
    x = torch.rand(2, 3, 40, 56)
    torch.testing.assert_close(found.network(x), network(x))


def test_a_file_with_other_classes_still_serves(network, tmp_path):
    other = get_model(NAME, weights=None, num_classes=7).eval()
    torch.save({"state_dict": other.state_dict()}, tmp_path / "weights.ckpt")
    found = load_pretrained(NAME, str(tmp_path / "weights.ckpt"))
    x = torch.rand(1, 3, 40, 56)
    torch.testing.assert_close(found.network.features(x), other.features(x))


def test_a_file_that_does_not_fit_lists_what_is_wrong(network, tmp_path):
    state = network.state_dict()
    state["stranger.weight"] = state.pop("features.0.0.weight")
    state["features.1.block.0.0.weight"] = torch.zeros(3)
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(UserError) as error:
        load_pretrained(NAME, str(tmp_path / "weights.pth"))
    text = str(error.value)
    assert "1 missing: features.0.0.weight" in text
    assert "1 surplus: stranger.weight" in text
    assert "1 of another shape: features.1.block.0.0.weight" in text


@pytest.mark.parametrize("content", [b"", b"no state dict at all", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_none(content, tmp_path):
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"weights\.pth cannot be read") as error:
        load_pretrained(NAME, str(tmp_path / "weights.pth"))
    assert "weights_only" not in str(error.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        load_pretrained(NAME, str(tmp_path / "weights.pth"))


class _Server(http.server.BaseHTTPRequestHandler):
    body = b""

    def do_GET(self) -> None:
        self.send_response(200 if self.body else 404)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    """torchvision's download leads to this machine, and its cache to the test's folder."""
    running = http.server.HTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    entry = MobileNet_V3_Small_Weights.DEFAULT.value
    monkeypatch.setitem(entry.__dict__, "url", f"http://127.0.0.1:{running.server_port}/weights.pth")
    yield running
    running.shutdown()
    running.server_close()
    _Server.body = b""


def test_weights_are_downloaded_into_torchvisions_cache(network, server, tmp_path, monkeypatch):
    torch.save(network.state_dict(), tmp_path / "served.pth")
    _Server.body = (tmp_path / "served.pth").read_bytes()
    monkeypatch.setattr("torch.hub.HASH_REGEX", __import__("re").compile("never"))
    found = load_pretrained(NAME, "DEFAULT")
    x = torch.rand(1, 3, 40, 56)
    torch.testing.assert_close(found.network(x), network(x))
    assert (tmp_path / "hub" / "hub" / "checkpoints" / "weights.pth").is_file()


def test_a_failing_download_says_the_way_out(server):
    with pytest.raises(UserError) as error:
        load_pretrained(NAME, "DEFAULT")
    assert "weights: FILE" in str(error.value)
    assert "weights: none" in str(error.value)


def test_stages_halve_the_picture(network):
    from torchvision.models.feature_extraction import create_feature_extractor

    stages = find_stages(network)
    assert list(stages) == [2, 4, 8, 16, 32]
    features = create_feature_extractor(network, {name: str(stride) for stride, name in stages.items()})
    for stride, value in features(torch.zeros(1, 3, 192, 64)).items():
        assert value.shape[2:] == (192 // int(stride), 64 // int(stride))


def test_a_gray_picture_gives_what_three_equal_channels_gave(network):
    gray = torch.rand(2, 1, 40, 56)
    before = first_convolution(network)(gray.expand(-1, 3, -1, -1))
    adapted = get_model(NAME, weights=None)
    adapted.load_state_dict(network.state_dict())
    adapt_input(adapted, 1)
    torch.testing.assert_close(first_convolution(adapted)(gray), before)


@pytest.mark.parametrize(("channels", "picture"), [(4, 3), (5, 1)])
def test_further_channels_change_nothing_at_first(network, channels, picture):
    adapted = get_model(NAME, weights=None)
    adapted.load_state_dict(network.state_dict())
    adapt_input(adapted, channels)
    x = torch.rand(2, channels, 40, 56)
    colors = x[:, :3] if picture == 3 else x[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(first_convolution(adapted)(x), first_convolution(network)(colors))


def test_statistics_follow_the_channels():
    mean, std = [0.3, 0.6, 0.9], [0.1, 0.2, 0.3]
    assert input_statistics(mean, std, 3) == (mean, std)
    assert input_statistics(mean, std, 4) == ([*mean, 0.0], [*std, 1.0])
    gray_mean, gray_std = input_statistics(mean, std, 5)
    assert gray_mean == pytest.approx([0.6, 0, 0, 0, 0])
    assert gray_std == pytest.approx([0.2, 1, 1, 1, 1])
