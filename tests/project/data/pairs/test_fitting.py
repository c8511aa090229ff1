"""Which pair maker fits one folder of images, or two."""

import pytest

from project.data.pairs import GaussianNoise, Given, GrayToColor, LinesToColor, PoissonNoise, fitting_pairs
from workbench.errors import UserError


def test_which_pairs_fit_the_folders(capsys):
    assert isinstance(fitting_pairs(None, None), GaussianNoise)
    assert isinstance(fitting_pairs(None, "color"), Given)
    maker = PoissonNoise()
    assert fitting_pairs(maker, None) is maker
    assert capsys.readouterr().out == ""
    assert isinstance(fitting_pairs(maker, "color"), Given)
    assert "PoissonNoise is off" in capsys.readouterr().out
    maker = LinesToColor()
    assert fitting_pairs(maker, None) is maker and fitting_pairs(maker, "color") is maker
    assert capsys.readouterr().out == ""
    assert isinstance(fitting_pairs(GrayToColor(), "color"), Given)
    with pytest.raises(UserError, match=r"--data\.target_root"):
        fitting_pairs(Given(), None)
