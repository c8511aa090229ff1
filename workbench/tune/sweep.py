"""``sweep``: search hyper-parameters with many runs of one configuration."""

from __future__ import annotations

import dataclasses
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentParser
from jsonargparse.typing import NonNegativeInt, PositiveInt

from workbench.errors import UserError, choose, did_you_mean, one_line
from workbench.main import PROGRAM
from workbench.parser import split_options
from workbench.signals import STOP
from workbench.tune.rounds import Settings
from workbench.tune.space import Space

COMPARED = "max_|min_|limit_|val_check|check_val|accumulate|precision"  # settings of the trainer that decide a result
OF_A_TRIAL = ("--name", "--resume", "--ckpt_path")  # which the sweep gives to each
EXPECTED = {bool: "true or false", int: "an integer of at least 0", float: "a number of at least 0", str: "a name"}
SAMPLERS = ("grid", "jittered_grid", "random", "quasi_random", "tpe")


def main(argv: list[str]) -> int:
    """Run ``sweep``: 0 when the study is finished, 1 when none of its trials has a result."""
    from workbench.console import silence_warnings
    from workbench.tune import report
    from workbench.tune.study import Sweep, explained, import_optuna, make_sampler, open_study

    silence_warnings()
    options, words = read_arguments(argv)
    settings = read_settings(options.sweep, options.trials)
    space = Space(settings.space)
    if options.wandb_yaml:
        print(report.write_wandb_sweep(Path(options.wandb_yaml), settings, space, words))
        return 0
    import_optuna()
    with STOP.handled():
        mode, runs_dir, seed, compared = read_configuration(settings, space, words)
        settings = dataclasses.replace(settings, mode=mode)
        name = options.study or Path(options.sweep).stem
        folder = Path(runs_dir) / name
        described = {
            "settings": {key: value for key, value in dataclasses.asdict(settings).items() if key != "trials"},
            "config": compared,
            "words": words,
        }
        study = open_study(options.storage, name, folder, mode, described, make_sampler(settings.seed))
        sweep = Sweep(study, settings, space, words, folder, seed, options.jobs, options.storage)
        with explained(options.storage, folder):
            if all(result.score is None for result in sweep.results().values()):
                check_space(space, words)
                sweep.rehearse()
            if options.retry == "failed":
                sweep.retry_failed()
            try:
                sweep.run()
            finally:
                with suppress(UserError), explained(options.storage, folder):  # the first error counts
                    sweep.print_state()
            print(report.write(study, folder, with_config=True))
            return 0 if sweep.finished() else 1


def read_arguments(argv: list[str]) -> tuple[Any, list[str]]:
    """The sweep's own options, and the words that go to every trial."""
    parser = ArgumentParser(
        prog=f"python -m {PROGRAM.name} sweep",
        description="Search hyper-parameters: many runs of one configuration. Any further --key value, and --config, "
        "goes to every trial. The same command continues a sweep that was stopped or killed.",
        exit_on_error=False,
    )
    add = parser.add_argument
    add("--sweep", type=str, required=True, help="YAML file with the space, such as configs/sweep/denoise.yaml")
    add("--study", type=str | None, default=None, help="name, and folder below runs; default: the sweep's file name")
    add("--trials", type=NonNegativeInt | None, default=None, help="points to try in the space, instead of the file's")
    add("--jobs", type=PositiveInt, default=1, help="trials at a time on this machine")
    add("--storage", type=str | None, default=None, help="database URL that several machines share; default: a file")
    add("--retry", type=Literal["failed"] | None, default=None, help="failed: try those again, from their first step")
    add("--wandb-yaml", type=str | None, default=None, help="write the space as a W&B sweep into this file, and stop")
    options, rest = split_options(parser, argv[1:])
    for word in rest:
        if word.split("=")[0] in OF_A_TRIAL:
            raise UserError(f"{word}: each trial of a sweep has its own. Leave it out; --study NAME names the sweep.")
    return options, rest


def read_settings(path: str, trials: int | None) -> Settings:
    """A sweep's file; UserError where it cannot be read or has a key that no sweep has."""
    try:
        tree = yaml.safe_load(Path(path).read_text("utf-8"))
    except FileNotFoundError:
        there = sorted(map(str, Path("configs/sweep").glob("*.yaml")))
        raise UserError(
            f"There is no file {path}.\nThere are: {', '.join(there) or 'none in configs/sweep'}."
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read as YAML: {one_line(error)}") from None
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    for key in tree if isinstance(tree, dict) else ["the whole file"]:
        if key not in fields:
            hint = did_you_mean(str(key), fields)
            raise UserError(f"{path}: {key} is not known.{hint}\nKnown: {', '.join(fields)}.")
    for key in ("space", "objective"):
        if not tree.get(key):
            raise UserError(f"{path}: {key} is missing.")
    for key, value in tree.items():
        kind = type(fields[key].default) if key != "objective" else str
        text = EXPECTED.get(kind)
        right = isinstance(value, (int, float) if kind is float else kind) and (kind is bool or value is not True)
        if text and (not right or (kind in (int, float) and (value is False or value < 0))):
            raise UserError(f"{path}: {key} is {value!r}; it has to be {text}.")
    if 0 < tree.get("refine", 0) <= 1:
        raise UserError(f"{path}: refine is {tree['refine']}; it has to be a factor above 1, such as 3, or 0 for none.")
    settings = Settings(**tree) if trials is None else dataclasses.replace(Settings(**tree), trials=trials)
    if settings.mode not in (None, "min", "max"):
        raise UserError(f"{path}: mode is {settings.mode!r}; it is min, max, or left out.")
    settings = dataclasses.replace(settings, sampler=choose(f"{path}: sampler", settings.sampler, SAMPLERS))
    if settings.trials == 0 and settings.sampler not in ("grid", "jittered_grid"):
        raise UserError(f"{path}: trials 0 means every point of a grid; {settings.sampler} has no end: --trials 24")
    return settings


def check_space(space: Space, words: list[str]) -> None:
    """Parse the configuration at every choice and both ends of each range; UserError with the key that is wrong."""
    from workbench.check import Parsed
    from workbench.parser import expand_args

    for name, point in space.examples():
        try:
            Parsed(expand_args(["fit", *words, *space.words(point)]), command="sweep")
        except UserError as error:
            raise UserError(f"space.{name}: {error}") from None


def read_configuration(settings: Settings, space: Space, words: list[str]) -> tuple[str, str, int, dict[str, Any]]:
    """Build the first point: the objective's mode, the folder of runs, the seed, and what trials have in common.

    The last is what two machines that share a study have to agree on: neither paths nor how many processes load data.
    """
    from workbench.check import Builder
    from workbench.monitor import monitor_mode
    from workbench.parser import expand_args

    try:
        built = Builder(expand_args(["fit", *words, *space.words(space.first())]), command="sweep")
    except UserError:
        check_space(space, words)  # which names the key, where the mistake is in the space
        raise
    config = built.plain_config()
    trainer, data = config["trainer"], config.get("data") or {}
    if trainer.get("max_time") is not None:
        raise UserError(
            "trainer.max_time is set: trials that share a machine cannot be compared by the clock.\n"
            "Bound each by its steps instead: --trainer.max_time null --trainer.max_steps N"
        )
    arguments = dict(data.get("init_args") or {})
    for key in (*getattr(built.datamodule, "path_arguments", ()), "num_workers"):
        arguments.pop(key, None)
    compared = {
        key: config.get(key) for key in ("model", "ema", "gradient_clipping", "early_stopping", "seed_everything")
    }
    compared["data"] = {"class_path": data.get("class_path"), "init_args": arguments}
    compared["trainer"] = {key: value for key, value in trainer.items() if re.match(COMPARED, key)}
    seed = config.get("seed_everything")
    seed = seed if isinstance(seed, int) and not isinstance(seed, bool) else 42
    mode = monitor_mode("objective", settings.objective, settings.mode, built.model)
    return mode, config["runs_dir"], seed, compared
