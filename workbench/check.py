"""``check``: builds data and model as ``fit`` would, lets every check look, and prints and writes what was found."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import nn

from workbench.cli import CommandLine
from workbench.console import print_facts, silence_warnings
from workbench.distributed import make_trainer
from workbench.errors import UserError
from workbench.findings.checks import CheckContext, all_checks
from workbench.findings.checks.context import listed
from workbench.findings.checks.trial import SILENT
from workbench.findings.engine import Finding, Outcome, Passed, Rule, RuleEngine, Skipped, append_findings, rounded
from workbench.parser import expand_args
from workbench.run import Run, start_run
from workbench.signals import STOP
from workbench.task import HELPER

# Settings of the trainer that say how a run is watched and kept.
NOT_CHECKED = {"logger", "callbacks", "plugins", "profiler", "fast_dev_run", "barebones", "default_root_dir"}
STYLES = {"passed": "green", "note": "yellow", "fault": "bold red", "skipped": "dim"}


def main(argv: list[str]) -> int:
    """Run ``check``; returns 1 where a fault was found, else 0. Raises UserError for a mistake in the configuration."""
    silence_warnings()
    started = time.monotonic()
    with STOP.handled():
        built = Builder(expand_args(["fit", *argv[1:]]), command=argv[0])
        config = built.config[built.subcommand]
        context = set_up(built.model, built.datamodule, built.trainer, built.plain_config())
        run = built.run = start_run(config.runs_dir, config.name, "check")
        if isinstance(context, Finding):
            return _report([context], run, started, {})
        paths = context.data.check_images(context, run.folder) if hasattr(context.data, "check_images") else []
        with Console(stderr=True).status("") as status:
            engine = RuleEngine(checks_of(context))
            outcomes = list(engine.run(context, lambda check: status.update(check.code)))
    images = {"Images": ", ".join(path.name for path in paths)} if paths else {}
    return _report(outcomes, run, started, describe_trainable(context) | images)


class _Ready(Exception):
    """Everything is there for the first step."""


class _Halt(Callback):
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        raise _Ready


def halting_trainer(*callbacks: Callback, **settings: Any) -> Trainer:
    """A trainer whose ``fit`` sets everything up, writes nothing, and stops before the first step."""
    return Trainer(**{**settings, **SILENT, "callbacks": [_Halt(), *callbacks]})


class Builder(CommandLine):
    """The command line of ``fit``, which builds everything and does not train."""

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        if config.ckpt_path is not None or config.get("resume"):
            raise UserError(
                f"{self.parser.words[0]} looks at a model before its first step: leave --ckpt_path and --resume out.\n"
                "To start from a checkpoint's weights: --model.init_args.init_from FILE."
            )
        super().before_instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        settings = {key: value for key, value in self.config[self.subcommand].trainer.items() if key not in NOT_CHECKED}
        settings |= {"devices": 1, "num_nodes": 1, "strategy": "auto"}
        clipping = self.config_init[self.subcommand].gradient_clipping  # which the trial steps need
        return make_trainer(lambda: halting_trainer(clipping, **settings), settings)

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing is run: the checks look at what is built."""

    def plain_config(self) -> dict[str, Any]:
        """The resolved configuration."""
        return yaml.safe_load(self.parser.dump(self.config, skip_check=True))[self.subcommand]


class Parsed(CommandLine):
    """The command line of ``fit``, which builds nothing; paths stay as they are written."""

    def before_instantiate_classes(self) -> None: ...
    def instantiate_classes(self) -> None: ...
    def _run_subcommand(self, subcommand: str) -> None: ...


def set_up(
    model: LightningModule, data: LightningDataModule | None, trainer: Trainer, config: dict[str, Any] | None = None
) -> CheckContext | Finding:
    """Let a trainer of `halting_trainer` set up data (None: the model's own loaders) and model up to the first step.

    A data module may offer ``prepare_for_check()``, called before: it has what ``fit`` refuses become findings, and
    returns the finding to report where setting up fails nevertheless, or None: then that is a UserError.
    """
    pristine = copy.deepcopy(model)
    finding = data.prepare_for_check() if hasattr(data, "prepare_for_check") else None
    try:
        trainer.fit(model, datamodule=data)
    except _Ready:
        pass
    except UserError:
        if finding is None:
            raise
        return finding
    model.to(trainer.strategy.root_device)
    loaders = model if data is None else data
    return CheckContext(model, loaders, trainer, list(trainer.optimizers), pristine, config or {})


def checks_of(context: CheckContext) -> list[Rule]:
    """The checks of a task: the built-in ones, and those of its data module."""
    return all_checks(context.data.checks() if hasattr(context.data, "checks") else ())


def describe_trainable(context: CheckContext) -> dict[str, object]:
    """A line for each network (how many parameters are trained, in which parts, which are frozen), and the rates."""
    lines: dict[str, object] = {}
    for name, network in context.model.named_children():
        sizes = [(p.numel(), p.requires_grad) for p in network.parameters()]
        if HELPER.search(name) or not sizes:
            continue
        trained, total = sum(size for size, on in sizes if on), sum(size for size, _ in sizes)
        lines[name] = f"{trained:,} of {total:,} parameters are trained"
        if trained < total:
            on, off = (listed(_parts(network, flag), 8) for flag in (True, False))
            lines[name] += f": {on}; frozen: {off}"
    groups = [group for optimizer in context.optimizers for group in optimizer.param_groups if "name" in group]
    if groups:
        lines["Rates"] = ", ".join(f"{group['name']} {group.get('initial_lr', group['lr']):.3g}" for group in groups)
    return lines


def _parts(network: nn.Module, trained: bool) -> list[str]:
    """The largest parts all of whose parameters are trained, or all frozen."""
    found: list[str] = []
    for name, module in network.named_modules():
        flags = {p.requires_grad for p in module.parameters()}
        if name and flags == {trained} and not name.startswith(tuple(f"{part}." for part in found)):
            found.append(name)
    return found


def _report(outcomes: Sequence[Outcome], run: Run, started: float, facts: dict[str, object]) -> int:
    """Write the findings; print what every check found, the advice of each finding, and the facts."""
    findings = [outcome for outcome in outcomes if isinstance(outcome, Finding)]
    append_findings(run.folder / "findings.jsonl", findings)
    faults = sum(finding.is_fault for finding in findings)
    passed = sum(isinstance(outcome, Passed) for outcome in outcomes)
    seconds = time.monotonic() - started
    facts["Result"] = f"{faults} faults, {len(findings) - faults} notes, {passed} passed in {seconds:.0f} s"
    facts["Folder"] = run.folder

    table = Table(title=f"{run.name} before the first step", title_justify="left")
    for heading in ("", "check", "measured", "limit"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("", "check"))
    for outcome in outcomes:
        word = getattr(outcome, "severity", type(outcome).__name__.lower())
        values = (outcome.reason, "") if isinstance(outcome, Skipped) else (outcome.value, outcome.limit)
        table.add_row(f"[{STYLES[word]}]{word}[/]", outcome.code, *(escape(rounded(value)) for value in values))
    Console().print(table)
    console = Console(soft_wrap=True, highlight=False)
    for finding in sorted(findings, key=lambda finding: not finding.is_fault):
        style = STYLES[finding.severity]
        console.print(f"[{style}]{finding.severity}[/] [bold]{finding.code}[/]: {escape(finding.where)}")
        console.print(f"  {finding.advice}", markup=False)
    print_facts(facts)
    return 1 if faults else 0
