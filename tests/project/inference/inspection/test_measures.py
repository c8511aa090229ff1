"""Measures against NumPy, correlations against SciPy."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm, spearmanr

from project.inference.inspection.measures import (
    MEASURES,
    edge_density,
    high_frequencies,
    in_words,
    rank_correlations,
    what_chance_gives,
)


def test_edges_are_where_the_brightness_steps():
    picture = torch.zeros(20, 30)
    picture[:, 12:] = 0.3
    assert edge_density(picture) == pytest.approx(2 / 30), "the two columns beside the step"
    assert edge_density(picture * 0.3) == 0, "a step of 0.09 is none"
    assert edge_density(picture.T) == pytest.approx(2 / 30)
    assert edge_density(torch.full((5, 7), 0.4)) == 0


def test_high_frequencies_are_told_from_low_ones():
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")

    def wave(across, down):
        return 0.5 + 0.4 * torch.sin(2 * math.pi * (across * x + down * y) + 1)

    assert high_frequencies(wave(0.4, 0.0)) > 0.99
    assert high_frequencies(wave(0.0, 0.4)) > 0.99
    assert high_frequencies(wave(0.1, 0.1)) < 0.01
    half = high_frequencies(0.5 * wave(0.4, 0) + 0.5 * wave(0.1, 0))
    assert half == pytest.approx(0.5, abs=0.03)
    assert high_frequencies(torch.full((9, 8), 0.3)) == 0
    assert high_frequencies(torch.full((1, 1), 0.3)) == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_contrast_and_brightness_are_those_of_the_luma(channels):
    picture = np.random.default_rng(0).random((channels, 11, 17))
    luma = picture[0] if channels == 1 else np.tensordot([0.299, 0.587, 0.114], picture, 1)
    given = torch.from_numpy(picture).float()
    assert MEASURES["brightness"](given) == pytest.approx(luma.mean(), abs=1e-5)
    assert MEASURES["contrast"](given) == pytest.approx(luma.std(), abs=1e-5)
    assert MEASURES["pixels"](given) == 11 * 17
    assert (MEASURES["colorfulness"](given) > 1) == (channels == 3)


def test_correlations_are_those_of_the_ranks_ties_included():
    random = np.random.default_rng(1)
    errors = random.random(40)
    measures = {
        "tied": np.round(errors * 5 + random.random(40) * 3),
        "opposite": -(errors**3),
        "other": random.random(40),
        "same": np.full(40, 0.2),
    }
    found = rank_correlations(errors.tolist(), {name: values.tolist() for name, values in measures.items()})
    for name in ("tied", "opposite", "other"):
        assert found[name] == pytest.approx(spearmanr(errors, measures[name]).statistic, abs=1e-4)
    assert found["opposite"] == pytest.approx(-1, abs=1e-5)
    assert math.isnan(found["same"])
    assert list(found) == ["opposite", "tied", "other", "same"]


def test_in_words_chance_is_not_taken_for_a_cause():
    found = {"edge_density": 0.71, "contrast": -0.5, "pixels": 0.2, "brightness": math.nan}
    text = in_words(found, 40)
    assert text.startswith("Worse with more edge density (+0.71), less contrast (-0.50);")
    assert "pixels" not in text and "0.42 may be chance" in text
    assert what_chance_gives(40) == pytest.approx(norm.ppf(1 - 0.05 / 2 / len(MEASURES)) / 39**0.5, abs=1e-3)
    assert "Nothing measured" in in_words({"contrast": 0.2}, 40)
    assert "too few" in in_words(found, 9)
