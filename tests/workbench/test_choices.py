import pytest

from workbench.errors import UserError, choose


@pytest.mark.parametrize("name", ["leaky_relu", "LeakyReLU", "Leaky-ReLU"])
def test_spellings_of_one_name(name):
    assert choose("activation", name, ["relu", "leaky_relu"]) == "leaky_relu"


def test_a_typo_is_told_the_nearest_name_and_all_known():
    with pytest.raises(UserError, match=r"norm: 'bach' is not known\. Did you mean 'batch'\?\nKnown: batch, group"):
        choose("norm", "bach", ["batch", "group"])
