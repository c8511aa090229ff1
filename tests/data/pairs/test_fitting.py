"""Which pair maker fits one folder of pictures, or two."""

import pytest

from project.data.pairs import GaussianNoise, Given, GreyToColour, LinesToColour, PoissonNoise, fitting_pairs
from project.errors import UserError


def test_which_pairs_fit_the_folders(capsys):
    assert isinstance(fitting_pairs(None, None), GaussianNoise)
    assert isinstance(fitting_pairs(None, "colour"), Given)
    maker = PoissonNoise()
    assert fitting_pairs(maker, None) is maker
    assert capsys.readouterr().out == ""
    assert isinstance(fitting_pairs(maker, "colour"), Given)
    assert "PoissonNoise is off" in capsys.readouterr().out
    maker = LinesToColour()
    assert fitting_pairs(maker, None) is maker and fitting_pairs(maker, "colour") is maker
    assert capsys.readouterr().out == ""
    assert isinstance(fitting_pairs(GreyToColour(), "colour"), Given)
    with pytest.raises(UserError, match=r"--data\.target_root"):
        fitting_pairs(Given(), None)
