import torch
from torch import nn

from workbench.hyperparameters import is_plain


def test_plain_values():
    assert is_plain({"a": [1, 2.0, None, "x", True], "b": {"c": (1, 2)}})
    assert not is_plain({"a": [nn.ReLU()]})
    assert not is_plain(torch.optim.Adam)
    assert not is_plain(torch.zeros(1))
