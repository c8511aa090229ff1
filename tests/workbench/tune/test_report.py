"""The report of a sweep, from made-up studies: nothing is trained."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from project.__main__ import main
from workbench.cli import CommandLine
from workbench.errors import UserError
from workbench.parser import expand_args
from workbench.tune import charts, report
from workbench.tune.best_config import best_tree
from workbench.tune.results import read_results, short_names
from workbench.tune.rounds import Round, Settings
from workbench.tune.sentences import sentences
from workbench.tune.space import Space, Values

optuna = pytest.importorskip("optuna")

CONFIGS = Path(__file__).parents[3] / "configs"
LR = "model.init_args.optimizer.init_args.lr"
OPTIMIZERS = [{"class_path": f"torch.optim.{name}"} for name in ("SGD", "Adam", "RMSprop")]
SPACE = {
    "model.init_args.optimizer": OPTIMIZERS,
    LR: {"low": 1e-4, "high": 1e-2, "log": True},
    "data.batch_size": {"low": 1, "high": 8},
}
CONDITIONAL = {
    "model.init_args.optimizer": [
        {
            "class_path": "torch.optim.SGD",
            "init_args": {"lr": {"low": 1e-3, "high": 0.1, "log": True}, "momentum": {"low": 0.0, "high": 0.9}},
        },
        {"class_path": "torch.optim.Adam", "init_args": {"lr": {"low": 9e-5, "high": 1.1e-2, "log": True}}},
    ],
    "model.init_args.network.init_args.norm": ["batch", None, "a_name_that_is_so_long_that_no_axis_has_room_for_it"],
    "data.crop": {"low": 16, "high": 256, "log": True},
    "data.a_range_whose_name_needs_several_lines": {"low": 0.0, "high": 0.5},
}


def open_study(name: str, space: dict[str, Any], words: list[str], stored: bool = False, **settings: Any) -> Any:
    """A study as ``sweep`` makes it; in memory, which is faster, or stored in ``runs/NAME``."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder = Path("runs", name)
    folder.mkdir(parents=True)
    chosen = Settings(space, **{"objective": "val/loss", "mode": "min", "sampler": "random", **settings})
    direction = "minimize" if chosen.mode == "min" else "maximize"
    storage = f"sqlite:///{folder}/study.db" if stored else None
    study = optuna.create_study(storage=storage, study_name=name, direction=direction)
    described = {"settings": dataclasses.asdict(chosen), "words": words}
    study.set_user_attr("sweep", json.dumps(described, sort_keys=True))
    return study


@pytest.fixture
def make_study() -> Callable[..., Any]:
    """make_study("name", space, [(kind, values, score or state), ...], words=[...], objective=..., mode=...)."""

    def make(
        name: str, space: dict[str, Any], trials: list[Any], words: Any = (), why: str = "", **settings: Any
    ) -> Any:
        study = open_study(name, space, list(words), **settings)
        rounds: list[Round] = []
        for index, (kind, values, outcome) in enumerate(trials):
            if not rounds or rounds[-1].kind != kind:
                rounds.append(Round(kind, [], why or kind))
            rounds[-1].points.append(values)
            attrs: dict[str, Any] = {"index": index, "kind": kind, "values": values}
            if isinstance(outcome, str):
                state, _, reason = outcome.partition(" ")
                add(study, state, attrs | ({"reason": reason} if reason else {}))
                continue
            curve = [[10 * i, 30.0 * i, outcome * (1 + 3 / i)] for i in range(1, 9)]
            facts = {"seconds": 240.0 + index, "parameters": 12_345, "epochs": 8, "steps": 80}
            add(study, "COMPLETE", attrs | facts | {"curve": curve, "run": f"runs/{name}/trial-{index:04d}/1"}, outcome)
        study.set_user_attr("rounds", [dataclasses.asdict(round) for round in rounds])
        return study

    return make


def add(study: Any, state: str, attrs: dict[str, Any], value: float | None = None) -> None:
    study.add_trial(
        optuna.trial.create_trial(state=getattr(optuna.trial.TrialState, state), value=value, user_attrs=attrs)
    )


def point(optimizer: str = "Adam", lr: float = 1e-3, batch: int = 4) -> Values:
    return {"model.init_args.optimizer": optimizer, LR: lr, "data.batch_size": batch}


def drawn(space: dict[str, Any], count: int, score: Callable[[Values], float], seed: int = 0) -> list[Any]:
    return [("search", values, score(values)) for values in Space(space).draw("random", seed, 0, count)]


def text_of(study: Any) -> str:
    return "\n".join(sentences(read_results(study)))


# ---------------------------------------------------------------------- rows, table, CSV


def test_the_last_finished_attempt_of_a_trial_counts() -> None:
    study = open_study("s", SPACE, [])
    first = {"index": 0, "kind": "search", "values": point()}
    add(study, "FAIL", first)  # killed: no reason
    add(study, "COMPLETE", first | {"seconds": 5.0}, 0.5)
    second = {"index": 1, "kind": "search", "values": point("SGD")}
    add(study, "FAIL", second | {"reason": "out of memory\nLog: x"})
    add(study, "RUNNING", second)  # tried once more
    add(study, "FAIL", {"index": 2, "kind": "search", "values": point("RMSprop")})
    third = {"index": 3, "kind": "search", "values": point(batch=2)}
    add(study, "FAIL", third | {"reason": "out of memory"})
    add(study, "COMPLETE", third, 0.4)  # with --retry failed
    add(study, "FAIL", {})  # enqueued twice: never a trial
    add(study, "WAITING", {"planned": 3})
    rows = read_results(study).rows
    assert [(row.trial, row.state, row.score) for row in rows] == [
        (0, "finished", 0.5),
        (1, "failed", None),
        (2, "running", None),
        (3, "finished", 0.4),
    ]


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_table_ranks_by_the_objective_and_leaves_repeats_out(make_study: Callable[..., Any], mode: str) -> None:
    scores = [0.5, 0.1, 0.9, 0.1]
    trials = [("search", point(batch=batch), score) for batch, score in enumerate(scores, 1)]
    trials += [("repeat", point(batch=2 if mode == "min" else 3), 0.0 if mode == "min" else 1.0)]
    results = read_results(make_study("s", SPACE, trials, mode=mode, objective="val/f"))
    assert [row.trial for row in results.ranked] == ([1, 3, 0, 2] if mode == "min" else [2, 0, 1, 3])
    table = report.table(results)
    assert "the best 4 of 4 trials by val/f" in table
    cells = next(line.split() for line in table.splitlines() if line.split()[:1] == ["1"])
    assert cells[1:3] == (["1", "0.1"] if mode == "min" else ["2", "0.9"])
    assert cells[3:7] == ["4.0", "min", "12,345", "8"] and "Adam" in cells


def test_the_table_has_the_best_twenty(make_study: Callable[..., Any]) -> None:
    trials = [("search", point(lr=1e-3 * (1 + i)), 1.0 + i) for i in range(25)]
    table = report.table(read_results(make_study("s", SPACE, trials)))
    assert "the best 20 of 25" in table
    assert [line.split()[0] for line in table.splitlines()[3:]] == [str(rank) for rank in range(1, 21)]


def test_a_narrow_terminal_shows_every_hyper_parameter_whole(
    make_study: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = read_results(make_study("s", SPACE, [("search", point("RMSprop", 0.00123), 0.5)]))
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    table = report.table(results)
    assert max(map(len, table.splitlines()[1:])) <= 60
    assert {"RMSprop", "0.00123", "optimizer", "batch_size", "lr", "0.5"} <= set(table.split())
    assert "time" in table and "epochs" not in table


def test_the_csv_holds_every_trial_with_its_reason(make_study: Callable[..., Any]) -> None:
    space = {"model.a": [None, 2], "data.b": {"low": 1, "high": 4}}
    trials = [
        ("search", {"model.a": None, "data.b": 2}, 0.7),
        ("search", {"model.a": 2, "data.b": 3}, 0.2),
        ("search", {"model.a": 2, "data.b": 1}, "FAIL out of memory\nLog: a, b"),
        ("search", {"model.a": 2, "data.b": 4}, "PRUNED pruned"),
        ("search", {"model.a": 2, "data.b": 2}, "RUNNING"),
    ]
    report.write(make_study("s", space, trials), Path("runs/s"))
    with Path("runs/s/trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["rank"], row["trial"], row["state"]) for row in rows] == [
        ("1", "1", "finished"),
        ("2", "0", "finished"),
        ("", "2", "failed"),
        ("", "3", "pruned"),
        ("", "4", "running"),
    ]
    assert [row["model.a"] for row in rows[:2]] == ["2", "null"]
    assert (rows[0]["val/loss"], rows[0]["data.b"], rows[0]["seconds"]) == ("0.2", "3", "241.0")
    assert rows[2]["reason"] == "out of memory Log: a, b" and rows[2]["val/loss"] == ""


def test_names_are_as_short_as_they_can_be() -> None:
    names = ["model.init_args.optimizer.init_args.lr", "model.init_args.network.init_args.lr", "data.crop"]
    assert list(short_names(names).values()) == ["optimizer.lr", "network.lr", "crop"]
    names = ["model.optimizer", "model.optimizer=SGD.lr", "model.optimizer=Adam.lr", "model.optimizer=SGD.momentum"]
    assert list(short_names(names).values()) == ["optimizer", "SGD.lr", "Adam.lr", "momentum"]


# ---------------------------------------------------------------------- sentences


def test_the_choice_of_the_leaders_is_counted(make_study: Callable[..., Any]) -> None:
    """RMSprop has ranks 1 to 7, and no other."""
    names = ["RMSprop"] * 7 + ["SGD"] * 6 + ["Adam"] * 8
    trials = [("search", point(name, 1e-3 + i * 1e-5), 0.1 + i) for i, name in enumerate(names)]
    text = text_of(make_study("s", SPACE, trials))
    assert "optimizer: RMSprop in 7 of the top 10 (7 of all 21)." in text
    assert "Best: trial 0, val/loss 0.1 (optimizer RMSprop, lr 0.001, batch_size 4, 4.0 min)." in text


@pytest.mark.parametrize(("mode", "sign"), [("min", 1), ("max", -1)])
@pytest.mark.parametrize(("second", "warned"), [(0.52, True), (0.70, False)])
def test_a_lead_within_the_spread_of_seeds_is_a_warning(
    make_study: Callable[..., Any], mode: str, sign: int, second: float, warned: bool
) -> None:
    """With three seeds 0.5, 0.53 and 0.47: the spread is 0.06."""
    trials = [("search", point(batch=4), sign * 0.5), ("search", point(batch=5), sign * second)]
    trials += [("repeat", point(batch=4), sign * 0.53), ("repeat", point(batch=4), sign * 0.47)]
    text = text_of(make_study("s", SPACE, trials, mode=mode, objective="val/f"))
    assert "The best with 3 seeds" in text and f"{sign * 0.5:.5g} on average" in text
    assert ("Warning: its lead over the second, trial 1" in text) == warned
    assert ("within that spread of 0.06" if warned else "is 0.2: more than that spread of 0.06") in text


def test_repeats_of_another_point_say_nothing_about_the_best(make_study: Callable[..., Any]) -> None:
    trials = [("search", point(batch=4), 0.5), ("repeat", point(batch=4), 0.6), ("search", point(batch=7), 0.3)]
    assert "seeds" not in text_of(make_study("s", SPACE, trials))


def test_an_extension_says_whether_it_helped(make_study: Callable[..., Any]) -> None:
    why = f"the best lies at the border {LR} = 0.01: extended to 0.03"

    def told(name: str, score: float, **limits: Any) -> str:
        space = {**SPACE, LR: SPACE[LR] | limits}
        trials = [("search", point(lr=0.01), 0.5), ("search", point(lr=1e-3), 0.8), ("extend", point(lr=0.03), score)]
        repeat = ("repeat", point(lr=0.01 if score > 0.5 else 0.03), 0.5)
        return text_of(make_study(name, space, [*trials, repeat], why=why))

    better, worse, limited = told("a", 0.4), told("b", 0.6), told("c", 0.4, limits=[1e-5, 0.03])
    assert "The best lies at the border lr = 0.01: extended to 0.03: better (0.5 -> 0.4, 1 trial)." in better
    assert "The best still lies at the border of the space: lr = 0.03." in better  # nothing past it was tried
    assert "The best lies at the `limits` of the space: lr = 0.03." in limited
    assert "extended to 0.03: no better (0.5 -> 0.6, 1 trial)." in worse
    assert "The best lies inside the space that was tried." in worse


def test_equal_scores_make_nothing_important(make_study: Callable[..., Any]) -> None:
    results = read_results(make_study("s", SPACE, drawn(SPACE, 20, lambda _: 0.5)))
    assert results.importance == {}
    assert charts.draw_charts(results, Path("charts"))[0]


def test_failed_pruned_and_running_trials_are_counted_with_reasons(make_study: Callable[..., Any]) -> None:
    trials = [("search", point(), 0.5), ("search", point("SGD"), "FAIL Out of memory\nLog: a")]
    trials += [
        ("search", point("SGD", 1e-4), "FAIL Out of memory\nLog: b"),
        ("search", point(batch=1), "FAIL diverged"),
    ]
    trials += [("search", point(batch=2), "PRUNED pruned"), ("search", point(batch=3), "RUNNING")]
    text = text_of(make_study("s", SPACE, trials))
    assert "6 trials: 1 with a result, 1 pruned, 3 failed, 1 running." in text
    assert "2 failed (trials 1, 2): Out of memory\n1 failed (trial 3): diverged\n" in text
    assert "--retry failed" in text


def test_a_study_without_results_is_no_error(make_study: Callable[..., Any]) -> None:
    study = make_study("s", SPACE, [("search", point(), "RUNNING"), ("search", point(batch=1), "FAIL broken")])
    text = report.write(study, Path("runs/s"), with_config=True)
    assert "2 trials: 0 with a result, 1 failed, 1 running." in text and "No chart of anything" in text
    assert not Path("configs").exists()


# ---------------------------------------------------------------------- charts


def test_importance_finds_what_the_objective_depends_on(make_study: Callable[..., Any]) -> None:
    trials = drawn(SPACE, 40, lambda values: abs(math.log10(values[LR]) + 3.3))
    results = read_results(make_study("s", SPACE, trials))
    assert next(iter(results.importance)) == LR and results.importance[LR] > 0.6
    assert sum(results.importance.values()) == pytest.approx(1)
    assert "Most important: lr (" in "\n".join(sentences(results))


def test_scores_that_hardly_differ_have_different_labels() -> None:
    assert charts.apart([0.90001, 0.90002, 0.9]) == ["0.90001", "0.90002", "0.9"]
    assert charts.apart([1e-5, 0.25]) == ["1e-5", "0.25"]


def test_smoothing_is_a_weighted_mean_of_the_past() -> None:
    values = np.random.default_rng(0).random(9)
    weights = 0.8 ** np.arange(9)[::-1]
    assert charts.smooth(values, 0.8)[-1] == pytest.approx(float(weights @ values / weights.sum()))
    assert charts.smooth(values, 0.0) == pytest.approx(values.tolist())


@pytest.mark.parametrize("sampler", ["grid", "jittered_grid"])
def test_each_cell_of_the_mesh_holds_one_point_of_the_grid(sampler: str) -> None:
    a = {"low": 1e-5, "high": 1e-1, "log": True, "points": 5}
    space = Space({"a": a, "b": {"low": 0.0, "high": 3.0, "points": 4}})
    points = space.grid(3, sampler == "jittered_grid")
    edges = {p.name: charts.edges(p, [values[p.name] for values in points], sampler) for p in space.parameters}
    cells = Counter(tuple(int(np.searchsorted(edges[name], values[name])) for name in "ab") for values in points)
    assert len(cells) == 20 and set(cells.values()) == {1}
    assert [len(edges[name]) for name in "ab"] == [6, 5]


def test_a_mesh_grows_with_the_points_past_its_border() -> None:
    (lr,) = Space({"lr": {"low": 1e-3, "high": 1e-1, "log": True, "points": 2}}).parameters
    edges = charts.edges(lr, [3e-3, 0.05, 0.5], "jittered_grid")
    assert edges == pytest.approx([1e-3, 1e-2, 1e-1, 1.0])


def out_of_view(axes: Any) -> list[Any]:
    """Labels of ticks outside of the axes: Matplotlib does not draw them."""
    found = []
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        found += [tick.label1 for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high]
    return found


@pytest.mark.parametrize(
    ("space", "count", "expected"),
    [
        (SPACE, 5, {"parallel", "choices", "curves", "heat_map"}),
        (SPACE, 24, {"parallel", "importance", "choices", "curves", "heat_map"}),
        (CONDITIONAL, 60, {"parallel", "importance", "choices", "curves", "heat_map"}),
    ],
)
def test_no_label_of_a_chart_is_cut_off_or_covers_another(
    make_study: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    space: dict[str, Any],
    count: int,
    expected: set[str],
) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    rng, figures = np.random.default_rng(count), {}
    trials = drawn(space, count, lambda _: float(rng.lognormal(0, 2)), seed=1)
    if count > 5:
        for number, outcome in ((3, "FAIL out of memory"), (7, "PRUNED pruned"), (8, "RUNNING")):
            trials[number] = (*trials[number][:2], outcome)
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: figures.update({path.stem: figure}))
    name = "val/a_metric_of_which_somebody_wanted_to_say_everything" if count == 60 else "val/loss"
    study = make_study(f"a_study_of_{count}", space, trials, objective=name)
    charts.draw_charts(read_results(study), Path("charts"))
    assert set(figures) == expected
    for name, figure in figures.items():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        hidden = {label for axes in figure.axes for label in out_of_view(axes)}
        texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in hidden]
        boxes = [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in texts]
        width, height = figure.bbox.size
        cut_off = [t for t, box in boxes if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height]
        assert cut_off == [], name
        covered = [(a, b) for i, (a, box) in enumerate(boxes) for b, other in boxes[:i] if box.overlaps(other)]
        assert covered == [], name


# ---------------------------------------------------------------------- the best configuration


class Parsed(CommandLine):
    """The command line of ``fit``, which builds nothing."""

    def before_instantiate_classes(self) -> None: ...
    def instantiate_classes(self) -> None: ...
    def _run_subcommand(self, subcommand: str) -> None: ...


def resolved(*words: str) -> dict[str, Any]:
    """What ``fit`` makes of these words, the run's name left out."""
    parsed = Parsed(expand_args(["fit", *words]), command="fit")
    tree = yaml.safe_load(parsed._parser("fit").dump(parsed.config.fit, skip_none=False))
    return {key: value for key, value in tree.items() if key not in ("name", "config")}


WORDS = [
    *("--config", str(CONFIGS / "denoise.yaml"), "--config", str(CONFIGS / "trainer" / "cpu.yaml")),
    *("--trainer.max_time", "null", "--data.root=photos", "--seed_everything", "7", "--name", "other"),
]


def test_the_best_configuration_trains_what_the_best_trial_did(make_study: Callable[..., Any]) -> None:
    space = CONDITIONAL | {"data.crop": {"low": 16, "high": 256, "log": True}}
    space.pop("data.a_range_whose_name_needs_several_lines")
    space["model.init_args.network.init_args.norm"] = ["batch", "none"]
    best = {
        "model.init_args.optimizer": "SGD",
        "model.init_args.optimizer=SGD.lr": 0.0123,
        "model.init_args.optimizer=SGD.momentum": 0.5,
        "model.init_args.network.init_args.norm": "none",
        "data.crop": 48,
    }
    study = make_study("s", space, [("search", best, 30.0)], WORDS, objective="val/psnr", mode="max", patience=4)
    text = report.write(study, Path("runs/s"), with_config=True)
    assert "configs/best_s.yaml" in text
    path = Path("configs/best_s.yaml")
    results = read_results(study)
    expected = resolved(*WORDS, *results.space.words(best), *results.settings.words)
    assert resolved("--config", str(path)) == expected
    assert expected["early_stopping"]["patience"] == 4 and expected["trainer"]["check_val_every_n_epoch"] is None
    assert expected["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.0123
    tree, head = yaml.safe_load(path.read_text()), path.read_text().splitlines()[:4]
    assert not {"name", "evaluate", "runs_dir"} & tree.keys() and tree["data"]["init_args"]["root"] == "photos"
    assert "trial 0, val/psnr 30" in head[0] and "fit --config configs/best_s.yaml" in head[2]


def test_a_best_configuration_that_was_edited_is_never_overwritten(make_study: Callable[..., Any]) -> None:
    path, other = Path("configs/best_s.yaml"), Path("configs/best_s-2.yaml")
    study = make_study("s", SPACE, [("search", point(batch=2), 0.5)], WORDS)
    report.write(study, Path("runs/s"), with_config=True)
    add(study, "COMPLETE", {"index": 1, "kind": "search", "values": point(batch=3)}, 0.4)
    report.write(study, Path("runs/s"), with_config=True)
    assert yaml.safe_load(path.read_text())["data"]["init_args"]["batch_size"] == 3 and not other.exists()
    edited = path.read_text().replace("batch_size: 3", "batch_size: 5")
    path.write_text(edited)
    text = report.write(study, Path("runs/s"), with_config=True)
    assert "best_s-2.yaml (configs/best_s.yaml was edited, and is left as it is)" in text
    assert path.read_text() == edited and yaml.safe_load(other.read_text())["data"]["init_args"]["batch_size"] == 3
    other.write_text("# mine\n" + other.read_text())  # a comment is an edit as well
    assert "best_s-3.yaml" in report.write(study, Path("runs/s"), with_config=True)
    path.write_text("model: mine\n")
    assert path.read_text() == "model: mine\n"


def test_a_configuration_that_is_gone_does_not_spoil_the_report(make_study: Callable[..., Any]) -> None:
    study = make_study("s", SPACE, [("search", point(), 0.5)], ["--config", "gone.yaml"])
    text = report.write(study, Path("runs/s"), with_config=True)
    assert "The best configuration cannot be written: There is no config file gone.yaml." in text
    with pytest.raises(UserError, match=r"gone\.yaml"):
        best_tree(read_results(study))


# ---------------------------------------------------------------------- W&B and TensorBoard

SWEPT = {
    "model.init_args.optimizer": [
        {
            "class_path": "torch.optim.SGD",
            "init_args": {
                "lr": {"low": 1e-3, "high": 0.1, "log": True},
                "momentum": {"low": 0.5, "high": 0.9, "points": 2},
            },
        },
        {"class_path": "torch.optim.Adam", "init_args": {"lr": {"low": 1e-3, "high": 0.1, "log": True}}},
    ],
    "trainer.max_time": [None, "00:00:01:00"],
    "data.batch_size": [4, 8],
    "data.crop": {"low": 16, "high": 64, "log": True},
    "trainer.max_steps": {"low": 100, "high": 400},
    "ema.decay": {"low": 0.9, "high": 0.99},
}


def test_a_wandb_sweep_describes_the_same_space() -> None:
    settings = Settings(SWEPT, "val/psnr", None, "tpe", 24, patience=3)
    printed = report.write_wandb_sweep(Path("a/w.yaml"), settings, Space(SWEPT), ["--config", "denoise.yaml"])
    tree = yaml.safe_load(Path("a/w.yaml").read_text())
    assert tree["method"] == "bayes" and tree["metric"] == {"name": "val/psnr", "goal": "maximize"}
    command = ["${env}", "python", "-m", "project", "fit", "--config", "denoise.yaml", "--checkpoint.monitor=val/psnr"]
    command += ["--early_stopping.monitor=val/psnr", "--early_stopping.patience=3", "${args}"]
    assert tree["command"] == command
    parameters = tree["parameters"]
    assert list(map(json.loads, parameters.pop("model.init_args.optimizer")["values"])) == [
        {"class_path": "torch.optim.SGD", "init_args": {"momentum": 0.5}},
        {"class_path": "torch.optim.SGD", "init_args": {"momentum": 0.9}},
        {"class_path": "torch.optim.Adam", "init_args": {}},
    ]
    assert parameters == {
        LR: {"distribution": "log_uniform_values", "min": 0.001, "max": 0.1},
        "trainer.max_time": {"values": ["null", "00:00:01:00"]},
        "data.batch_size": {"values": [4, 8]},
        "data.crop": {"distribution": "q_log_uniform_values", "min": 16, "max": 64, "q": 1},
        "trainer.max_steps": {"distribution": "int_uniform", "min": 100, "max": 400},
        "ema.decay": {"distribution": "uniform", "min": 0.9, "max": 0.99},
    }
    assert "wandb sweep a/w.yaml" in printed and "wandb agent" in printed and "fixed points" in printed


def test_wandb_itself_reads_every_parameter() -> None:
    module = pytest.importorskip("wandb.sdk.sweeps.scheduler.optuna")
    for sampler in ("tpe", "random", "grid", "jittered_grid"):
        report.write_wandb_sweep(Path("w.yaml"), Settings(SWEPT, "val/loss", "min", sampler), Space(SWEPT), [])
        for described in yaml.safe_load(Path("w.yaml").read_text())["parameters"].values():
            distribution = module.sweep_parameter_to_distribution(described)
            assert isinstance(distribution, optuna.distributions.BaseDistribution)
            assert "grid" not in sampler or isinstance(distribution, optuna.distributions.CategoricalDistribution)


@pytest.mark.parametrize("turn", [1, -1])
def test_fit_takes_what_an_agent_passes_in_any_order(turn: int) -> None:
    agent = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    words = ["--config", str(CONFIGS / "denoise.yaml")]
    report.write_wandb_sweep(Path("w.yaml"), Settings(SWEPT, "val/psnr", "max", "tpe"), Space(SWEPT), words)
    tree = yaml.safe_load(Path("w.yaml").read_text())
    chosen = {key: {"value": p["values"][0] if "values" in p else p["min"]} for key, p in tree["parameters"].items()}
    macros = agent.create_sweep_command_args({"args": dict(list(chosen.items())[::turn])})
    command = agent.create_sweep_command(tree["command"])
    given = [word for part in command[1:] for word in (macros["args"] if part == "${args}" else [part])]
    assert given[:4] == ["python", "-m", "project", "fit"]
    config = resolved(*given[4:])
    optimizer = config["model"]["init_args"]["optimizer"]
    assert optimizer["class_path"] == "torch.optim.SGD"
    assert (optimizer["init_args"]["lr"], optimizer["init_args"]["momentum"]) == (0.001, 0.5)
    assert config["trainer"]["max_time"] is None and config["data"]["init_args"]["batch_size"] == 4


def test_wandb_cannot_tie_keys() -> None:
    space = {"data.crop": [16, 32], "data.batch_size": {"same_as": "data.crop", "times": 2}}
    with pytest.raises(UserError, match=r"space\.data\.batch_size: W&B cannot tie"):
        report.write_wandb_sweep(Path("w.yaml"), Settings(space, "val/loss"), Space(space), [])
    assert not Path("w.yaml").exists()


def test_finished_trials_appear_in_tensorboards_hparams(make_study: Callable[..., Any]) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    trials = [
        ("search", point("SGD", 0.01, 2), 0.25),
        ("search", point(), "FAIL broken"),
        ("search", point(), "RUNNING"),
    ]
    study = make_study("s", SPACE, trials)
    for _ in range(2):  # the second time writes nothing more
        report.write(study, Path("runs/s"))
    (file,) = Path("runs/s/tensorboard").rglob("events.*")
    assert file.parent.name == "trial-0000"
    events = EventAccumulator(str(file.parent)).Reload()
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    values = HParamsPluginData.FromString(content).session_start_info.hparams
    assert values["optimizer"].string_value == "SGD"
    assert (values["lr"].number_value, values["batch_size"].number_value) == (0.01, 2)
    assert events.Scalars("best/val/loss")[0].value == 0.25


def test_without_tensorboard_the_report_is_complete(
    make_study: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    report.write(make_study("s", SPACE, [("search", point(), 0.5)]), Path("runs/s"))
    assert Path("runs/s/trials.csv").is_file() and not Path("runs/s/tensorboard").exists()


# ---------------------------------------------------------------------- the command


def test_the_command_reports_a_study_that_is_being_written(
    make_study: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    trials = [*drawn(SPACE, 14, lambda values: values["data.batch_size"] + values[LR]), ("search", point(), "RUNNING")]
    make_study("night", SPACE, trials, WORDS, stored=True)
    before = Path("runs/night/study.db").read_bytes()
    assert main(["sweep-report", "night", "--smoothing", "0.8"]) == 0
    printed, errors = capsys.readouterr()
    assert errors == ""
    assert "15 trials: 14 with a result, 1 running." in printed and "the best 14 of 14 trials" in printed
    assert Path("runs/night/report.txt").read_text() == printed
    assert Path("runs/night/study.db").read_bytes() == before
    assert {path.stem for path in Path("runs/night/charts").glob("*.png")} >= {"parallel", "importance", "curves"}
    assert "fit --config configs/best_night.yaml" in printed


def test_a_study_that_is_not_there_or_damaged_is_a_clear_error(
    make_study: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    make_study("night", SPACE, [("search", point(), 0.5)], stored=True)
    assert main(["sweep-report", "nigth"]) == 2
    assert "There is no study 'nigth'. Did you mean night?\nThere are: night." in capsys.readouterr().err
    assert not Path("runs/nigth").exists()
    assert main(["sweep-report", "x", "--storage", "sqlite:///runs/night/study.db"]) == 2
    assert "There is no study 'x'.\nThere are: night." in capsys.readouterr().err
    Path("runs/night/study.db").write_bytes(b"no database" * 500)
    assert main(["sweep-report", "night"]) == 2
    assert "study.db cannot be read: file is not a database" in capsys.readouterr().err
    assert Path("runs/night/study.db").read_bytes() == b"no database" * 500
    assert main(["sweep-report", "night", "--smoothing", "1"]) == 2
    assert "smoothing" in capsys.readouterr().err


def test_a_study_of_another_program_is_a_clear_error() -> None:
    with pytest.raises(UserError, match="was not made by `sweep`"):
        read_results(optuna.create_study(study_name="theirs"))
