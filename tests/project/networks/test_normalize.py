import numpy as np
import pytest
import torch

from project.networks import Normalize, Normalized
from workbench.errors import UserError


def test_forward_and_inverse_equal_numpy():
    image = np.random.default_rng(0).random((2, 3, 5, 7), dtype=np.float32)
    mean, std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    normalize = Normalize(3, mean, std)
    expected = (image - np.reshape(mean, (1, 3, 1, 1))) / np.reshape(std, (1, 3, 1, 1))
    normalized = normalize(torch.from_numpy(image))
    np.testing.assert_allclose(normalized.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(normalize.inverse(normalized).numpy(), image, atol=1e-6)


@pytest.mark.parametrize(("mean", "std", "message"), [([0.1, 0.2], 1.0, "2 values"), (0.0, [1.0, 0.0, 1.0], "above 0")])
def test_impossible_statistics_are_refused(mean, std, message):
    with pytest.raises(UserError, match=message):
        Normalize(3).set(mean, std)


def test_any_network_is_wrapped_between_the_two():
    wrapped = Normalized(torch.nn.Conv2d(3, 2, 1, bias=False), 3, 2)
    torch.nn.init.zeros_(wrapped.network.weight)
    wrapped.normalize_output.set([0.25, 0.75], 0.1)
    assert torch.equal(wrapped(torch.rand(1, 3, 4, 5))[0, :, 1, 2], torch.tensor([0.25, 0.75]))
