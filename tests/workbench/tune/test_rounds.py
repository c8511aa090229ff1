"""Rounds of a sweep on made-up objectives whose optimum is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from workbench.tune.rounds import Result, Round, Settings, next_round
from workbench.tune.space import Space, Values

SAMPLERS = ["grid", "jittered_grid", "random", "quasi_random"]


def play(
    objective: Callable[[Values], float | None], space: dict[str, Any], **settings: Any
) -> tuple[list[Round], list[Result]]:
    """All rounds of a sweep, and its results."""
    given, rounds, results = Settings(space, "x", mode="min", **settings), [], []
    while (following := next_round(given, Space(space), rounds, results)) is not None:
        rounds.append(following)
        results += [Result(len(results) + i, dict(p), objective(p)) for i, p in enumerate(following.points)]
        assert len(rounds) < 30
    return rounds, results


def kinds(rounds: list[Round]) -> list[str]:
    return [round.kind for round in rounds]


def best(results: list[Result]) -> Values:
    return min((r for r in results if r.score is not None), key=lambda result: result.score).values


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("optimum", [1e-6, 3e-1])
def test_the_space_grows_until_the_best_is_inside(sampler: str, optimum: float) -> None:
    space = {"lr": {"low": 1e-4, "high": 1e-2, "log": True, "points": 3}, "n": [1, 2]}

    def objective(point: Values) -> float:
        return math.log(point["lr"] / optimum) ** 2 + 1000 * point["n"]

    rounds, results = play(objective, space, sampler=sampler, trials=24, extend=10, refine=3.0)
    assert kinds(rounds)[:2] == ["search", "extend"] and kinds(rounds)[-1] == "repeat"
    extended = [round.points[0]["lr"] for round in rounds if round.kind == "extend"]
    start = 1e-4 if optimum < 1e-4 else 1e-2
    step = 1 / 3 if optimum < 1e-4 else 3
    assert extended == pytest.approx([start * step ** (i + 1) for i in range(len(extended))], rel=1e-4)
    # The last step lies beyond the optimum and is worse: the best is inside.
    scores = [math.log(lr / optimum) ** 2 for lr in extended]
    assert scores[-1] > scores[-2] and sorted(scores[:-1], reverse=True) == scores[:-1]
    assert "inside the space" in rounds[-1].why and "border" in rounds[1].why
    found = best(results)
    assert found["n"] == 1 and abs(math.log(found["lr"] / optimum)) < math.log(3) / 2


def test_extension_stops_at_its_limits() -> None:
    def objective(point: Values) -> float:
        return -point["lr"]  # the more the better

    space = {"lr": {"low": 0.1, "high": 1.0, "log": True, "points": 2, "limits": [0.1, 20]}}
    rounds, _ = play(objective, space, sampler="grid", trials=0, extend=9)
    assert [p["lr"] for r in rounds if r.kind == "extend" for p in r.points] == [3, 9, 20]
    assert "at the border still, at lr = 20" in rounds[-1].why
    rounds, _ = play(objective, space, sampler="grid", trials=0, extend=2)
    assert [p["lr"] for r in rounds if r.kind == "extend" for p in r.points] == [3, 9]
    assert "at the border still, at lr = 9" in rounds[-1].why
    rounds, _ = play(objective, space, sampler="grid", trials=0, extend=0)
    assert kinds(rounds) == ["search", "repeat"]


def test_an_extension_that_fails_ends_there() -> None:
    rounds, _ = play(
        lambda point: None if point["n"] > 4 else -point["n"], {"n": {"low": 1, "high": 4}}, sampler="grid", trials=0
    )
    assert [round.points for round in rounds if round.kind == "extend"] == [[{"n": 5}]]
    assert rounds[-1].points == [{"n": 4}] * 2


def test_two_borders_grow_at_the_same_time() -> None:
    rounds, results = play(
        lambda p: (p["a"] - 6) ** 2 + (p["b"] + 4) ** 2,
        {"a": {"low": 1, "high": 4}, "b": {"low": -2.0, "high": 2.0}},
        sampler="grid",
        trials=0,
    )
    assert rounds[1].points == [{"a": 5, "b": -2.0}, {"a": 4, "b": -4.0}]
    assert best(results) == {"a": 6, "b": -4.0}


@pytest.mark.parametrize("factor", [2.0, 3.0])
def test_refinement_multiplies_log_ranges_and_divides_the_cells_of_others(factor: float) -> None:
    space = {
        "lr": {"low": 1e-4, "high": 1e-2, "log": True, "points": 3},
        "x": {"low": 0.0, "high": 12.0, "points": 5},
        "n": {"low": 0, "high": 24, "points": 5},
        "c": ["a", "b"],
    }

    def objective(point: Values) -> float:
        far = math.log10(point["lr"] / 1e-3) ** 2 + (point["x"] - 6) ** 2 + (point["n"] - 12) ** 2
        return far + (point["c"] == "a")

    rounds, _ = play(objective, space, sampler="grid", trials=0, refine=factor)
    assert kinds(rounds) == ["search", "refine", "repeat"]
    points = rounds[1].points
    cell = round(6 / factor)
    assert {point["c"] for point in points} == {"b"}
    assert sorted({point["lr"] for point in points}) == pytest.approx([1e-3 / factor, 1e-3, 1e-3 * factor], rel=1e-5)
    assert sorted({point["x"] for point in points}) == pytest.approx([6 - 3 / factor, 6, 6 + 3 / factor])
    assert sorted({point["n"] for point in points}) == [12 - cell, 12, 12 + cell]
    assert len({tuple(point.values()) for point in points}) == len(points) == 3**3 - 1


@pytest.mark.parametrize("sampler", ["random", "quasi_random"])
def test_samples_are_refined_within_a_step_of_the_best(sampler: str) -> None:
    space = {"lr": {"low": 1e-5, "high": 1e-1, "log": True}, "n": {"low": 1, "high": 9}}
    rounds, results = play(
        lambda p: abs(math.log10(p["lr"] / 1e-3)) + abs(p["n"] - 5), space, sampler=sampler, trials=40, refine=3.0
    )
    searched = best(results[:40])
    refined = rounds[1]
    assert refined.kind == "refine" and len(refined.points) == 20
    ratios = [point["lr"] / searched["lr"] for point in refined.points]
    assert 1 / 3 <= min(ratios) < 0.6 and 1.7 < max(ratios) <= 3
    assert all(abs(point["n"] - searched["n"]) <= 1 for point in refined.points)
    assert rounds[2].kind == "repeat" and rounds[2].points == [best(results[:60])] * 2
    assert rounds[2].seed_offsets == [1, 2] and set(refined.seed_offsets) == {0}


def test_more_trials_are_added_to_a_finished_sweep() -> None:
    space, objective = {"x": {"low": -10.0, "high": 10.0}}, lambda point: point["x"] ** 2
    few = Settings(space, "x", mode="min", sampler="random", trials=8)
    rounds, results = play(objective, space, sampler="random", trials=8)
    more = next_round(Settings(space, "x", mode="min", sampler="random", trials=20), Space(space), rounds, results)
    assert next_round(few, Space(space), rounds, results) is None
    assert more.kind == "search" and len(more.points) == 12
    whole = next_round(Settings(space, "x", mode="min", sampler="random", trials=20), Space(space), [], [])
    assert rounds[0].points + more.points == whole.points


def test_nothing_follows_where_every_trial_failed() -> None:
    rounds, _ = play(lambda point: None, {"x": [1, 2]}, sampler="grid", trials=0, refine=3.0)
    assert kinds(rounds) == ["search"]


def test_ranges_of_a_choice_that_was_not_taken_stay() -> None:
    optimizers = [
        {"class_path": f"a.{name}", "init_args": {"lr": {"low": 1e-3, "high": 1e-1, "log": True, "points": 3}}}
        for name in ("Adam", "SGD")
    ]
    rounds, _ = play(
        lambda p: math.log(p["o=SGD.lr"] / 1) ** 2 if p["o"] == "SGD" else 99,
        {"o": optimizers},
        sampler="grid",
        trials=0,
    )
    extended = [point for round in rounds if round.kind == "extend" for point in round.points]
    assert [point["o=SGD.lr"] for point in extended] == pytest.approx([0.3, 0.9, 2.7])
    assert all(set(point) == {"o", "o=SGD.lr"} for point in extended)
