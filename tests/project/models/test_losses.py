import numpy as np
import pytest
import torch

from project.models import Charbonnier, PSNRLoss


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.rand(2, 3, 4, 5, dtype=torch.float64, generator=generator) for _ in range(2))


def test_charbonnier_equals_numpy():
    output, target = pictures()
    expected = np.mean(np.sqrt((output.numpy() - target.numpy()) ** 2 + 0.01**2))
    assert Charbonnier(0.01)(output, target).item() == pytest.approx(expected)
    assert Charbonnier()(output, output).item() == pytest.approx(1e-3)


def test_psnr_loss_is_minus_the_mean_psnr_of_the_pictures():
    output, target = pictures()
    errors = ((output.numpy() - target.numpy()) ** 2).reshape(2, -1).mean(1)
    assert PSNRLoss()(output, target).item() == pytest.approx(np.mean(10 * np.log10(errors)), abs=1e-5)
    assert PSNRLoss()(output, output).item() == pytest.approx(-80)


@pytest.mark.parametrize("loss", [Charbonnier(), Charbonnier(0.1), PSNRLoss()])
def test_gradients_equal_finite_differences(loss):
    output, target = pictures()
    assert torch.autograd.gradcheck(lambda x: loss(x, target), output.requires_grad_())
