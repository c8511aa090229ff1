"""Points of a space against formulas of their own."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from workbench.errors import UserError
from workbench.tune.space import Space

LR = {"low": 1e-4, "high": 1e-1, "log": True}
OPTIMIZERS = [
    {"class_path": f"torch.optim.{name}", "init_args": {"lr": LR | {"low": low}, **more}}
    for name, low, more in (("Adam", 1e-5, {}), ("RMSprop", 1e-5, {}), ("SGD", 1e-4, {"momentum": 0.9}))
] + ["torch.optim.Adagrad"]


def test_a_log_grid_multiplies_and_a_linear_one_adds() -> None:
    space = Space({"lr": {**LR, "points": 4}, "x": {"low": 0.0, "high": 0.5, "points": 3}})
    points = space.grid(0, jittered=False)
    assert sorted({point["lr"] for point in points}) == [1e-4, 1e-3, 1e-2, 1e-1]
    assert sorted({point["x"] for point in points}) == [0, 0.25, 0.5]
    assert len({tuple(point.values()) for point in points}) == len(points) == 12


@pytest.mark.parametrize("seed", [0, 1])
def test_jittered_points_lie_one_in_each_cell_and_nowhere_regular(seed: int) -> None:
    space = Space({"lr": {**LR, "points": 6}, "x": {"low": -1.0, "high": 1.0, "points": 5}, "n": [1, 2]})
    points = space.grid(seed, jittered=True)
    cells = [(math.floor((math.log10(p["lr"]) + 4) * 2), math.floor((p["x"] + 1) / 0.4), p["n"]) for p in points]
    assert sorted(cells) == [(i, j, n) for i in range(6) for j in range(5) for n in (1, 2)]
    assert len({point["lr"] for point in points}) == len({point["x"] for point in points}) == 60
    shifts = np.array([(math.log10(point["lr"]) + 4) * 2 % 1 for point in points])
    assert 0.35 < shifts.mean() < 0.65 and shifts.min() < 0.2 and shifts.max() > 0.8  # uniform within the cell
    assert points == Space({"lr": {**LR, "points": 6}, "x": {"low": -1, "high": 1.0, "points": 5}, "n": [1, 2]}).grid(
        seed, jittered=True
    )
    assert points != space.grid(seed + 1, jittered=True)


def test_integers_stay_integers() -> None:
    space = Space({"n": {"low": 1, "high": 4}, "width": {"low": 16, "high": 256, "log": True, "points": 5}})
    points = space.grid(0, jittered=True)
    assert {point["n"] for point in points} == {1, 2, 3, 4}
    assert {point["width"] for point in points} == {16, 32, 64, 128, 256}
    drawn = [point["n"] for point in space.draw("random", 0, 0, 400)]
    assert all(isinstance(n, int) for n in drawn)
    assert all(70 < drawn.count(n) < 130 for n in (1, 2, 3, 4))  # an equal share each


@pytest.mark.parametrize("sampler", ["random", "quasi_random"])
def test_draws_do_not_depend_on_how_many_are_asked_for(sampler: str) -> None:
    space = Space({"lr": LR, "optimizer": OPTIMIZERS, "n": {"low": 1, "high": 4}})
    whole = space.draw(sampler, 7, 0, 40)
    assert whole == space.draw(sampler, 7, 0, 13) + space.draw(sampler, 7, 13, 27)
    assert whole != space.draw(sampler, 8, 0, 40)
    logs = np.log10([point["lr"] for point in whole])
    assert logs.min() >= -4 and logs.max() <= -1
    if sampler == "quasi_random":  # 32 points of a Sobol sequence: one in each 32nd of the range
        assert sorted(np.floor((logs[:32] + 4) / 3 * 32).astype(int)) == list(range(32))


def test_classes_have_ranges_of_their_own() -> None:
    space = Space({"model.init_args.optimizer": OPTIMIZERS})
    names = [parameter.name for parameter in space.parameters]
    key = "model.init_args.optimizer"
    assert names == [key, f"{key}=Adam.lr", f"{key}=RMSprop.lr", f"{key}=SGD.lr"]
    points = space.grid(0, jittered=False)
    assert len(points) == 3 * 3 + 1
    for point in points:
        own = [name for name in point if name != key]
        assert own == ([] if point[key] == "torch.optim.Adagrad" else [f"{key}={point[key]}.lr"])
    sgd = next(point for point in points if point[key] == "SGD")
    first, second = space.words(sgd)
    assert json.loads(first.partition("=")[2]) == {"class_path": "torch.optim.SGD", "init_args": {"momentum": 0.9}}
    assert second == f"--{key}.init_args.lr={sgd[f'{key}=SGD.lr']}"
    assert space.words({key: "torch.optim.Adagrad"}) == [f"--{key}=torch.optim.Adagrad"]


def test_every_choice_and_end_is_among_the_examples() -> None:
    space = Space({"o": OPTIMIZERS, "n": {"low": 1, "high": 4}})
    examples = list(space.examples())
    assert {point["o"] for name, point in examples if name == "o"} == {"Adam", "RMSprop", "SGD", "torch.optim.Adagrad"}
    assert [point["o=SGD.lr"] for name, point in examples if name == "o=SGD.lr"] == [1e-4, 1e-1]
    assert [point["n"] for name, point in examples if name == "n"] == [1, 4]


def test_ties_follow_their_key() -> None:
    space = Space(
        {
            "width": {"low": 8, "high": 32, "log": True, "points": 3},
            "twice": {"same_as": "width", "times": 2},
            "same": {"same_as": "width"},
            "size": [[1, 2], [3, 4]],
            "copy": {"same_as": "size"},
        }
    )
    assert space.words({"width": 16, "size": "[3, 4]"}) == [
        "--width=16",
        "--size=[3, 4]",
        "--twice=32",
        "--same=16",
        "--copy=[3, 4]",
    ]


def test_labels_name_each_choice_once() -> None:
    choices: list[Any] = [
        None,
        True,
        0.5,
        "a b",
        [1, 2],
        {"class_path": "torch.optim.SGD", "init_args": {"momentum": 0.9}},
        {"class_path": "torch.optim.SGD"},
    ]
    space = Space({"k": choices})
    labels = list(space.parameters[0].choices)
    assert labels == [None, True, 0.5, "a b", "[1, 2]", "SGD", "SGD-2"]
    words = [space.words({"k": label})[0].partition("=")[2] for label in labels]
    assert words[:5] == ["null", "true", "0.5", "a b", "[1, 2]"]
    assert [json.loads(word) for word in words[5:]] == choices[5:]


def test_numbers_that_yaml_reads_as_text() -> None:
    space = Space({"lr": {"low": "1e-3", "high": "1e-1", "log": True, "points": 3}})
    assert sorted(point["lr"] for point in space.grid(0, False)) == [1e-3, 1e-2, 1e-1]


@pytest.mark.parametrize(
    ("low", "high", "log", "limits"),
    [
        (1e-4, 1e-2, True, (1e-7, 10)),
        (16, 64, True, (1, 64000)),
        (1, 4, False, (1, 13)),
        (0, 4, False, (0, 16)),
        (0.0, 0.5, False, (0, 1)),  # dropout
        (-1.0, 1.0, False, (-7, 7)),
        (2.0, 3.0, False, (0, 6)),
    ],
)
def test_how_far_a_range_may_grow(low: float, high: float, log: bool, limits: tuple[float, float]) -> None:
    parameter = Space({"x": {"low": low, "high": high, "log": log}}).parameters[0]
    assert parameter.limits == pytest.approx(limits)


@pytest.mark.parametrize(
    ("space", "text"),
    [
        ({}, "`space` is empty"),
        ({"x": {"low": 3, "high": 3}}, "space.x: low 3 has to be below high 3"),
        ({"x": {"low": 2, "high": 1}}, "low 2 has to be below high 1"),
        ({"x": {"low": 1}}, "high is None, not a number"),
        ({"x": {"low": 0, "high": 1, "log": True}}, "a log range starts above 0"),
        ({"x": {"low": 1, "high": float("inf")}}, "not a finite number"),
        ({"x": {"low": 1, "high": 2, "lgo": True}}, "lgo is not known here"),
        ({"x": {"low": 1, "high": 2, "points": 0}}, "at least 1"),
        ({"x": {"low": 1, "high": 2, "limits": [1.5, 3]}}, "have to enclose 1 to 2"),
        ({"x": {"low": 1, "high": 2, "limits": 3}}, "has to be a pair"),
        ({"x": {"low": 1.0, "high": 2.0, "log": True, "limits": [0, 3]}}, "above 0"),
        ({"x": []}, "a list of choices, or a range"),
        ({"x": 3}, "a list of choices, or a range"),
        ({"x": [1, 2, 1]}, "1 stands there twice"),
        ({"x": [1, True]}, "stands there twice"),
        ({"x": [1, 2], "y": {"same_as": "z"}}, "same_as z names no key"),
        ({"x": ["a", "b"], "y": {"same_as": "x", "times": "much"}}, "times is 'much'"),
        ({"x": ["a", "b"], "y": {"same_as": "x", "times": 2}}, "no number"),
    ],
)
def test_mistakes_in_a_space(space: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text.replace("(", r"\(")):
        Space(space)


def test_a_grid_without_end() -> None:
    with pytest.raises(UserError, match="more than 100,000 points"):
        Space({f"x{i}": {"low": 0.0, "high": 1.0, "points": 10} for i in range(6)}).grid(0, False)
