"""``fit``, ``validate`` and ``test`` for any LightningModule and LightningDataModule, each in a run's folder."""

from __future__ import annotations

import re
import shutil
import signal
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, ProgressBar
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.utilities.model_helpers import is_overridden

from workbench.callbacks.checkpoints import Checkpoints, EarlyStopping
from workbench.callbacks.clipping import GradientClipping
from workbench.callbacks.ema import EMA
from workbench.callbacks.metadata import RunMetadata
from workbench.callbacks.profile import StepProfile
from workbench.callbacks.progress import Progress
from workbench.callbacks.resume import ExactResume
from workbench.checkpoint import read_checkpoint
from workbench.console import print_scores, resume_command, silence_warnings
from workbench.distributed import explain_failure, is_sharded, make_trainer, terminate_children
from workbench.errors import UserError
from workbench.loggers import WandbMode, finish_wandb, make_loggers, upload_command
from workbench.main import PROGRAM, load
from workbench.parser import BEST, Parser, expand_args, walk
from workbench.run import Run, find_run, latest_valid_checkpoint, start_run
from workbench.signals import STOP, Stop
from workbench.task import skip_pretrained_download
from workbench.watch import Watch

# Each has a key of its own, so that `--early_stopping.patience 5` works. They are called in this order, but for those
# with an `order`, which `ExactResume` sorts; Lightning calls what saves checkpoints behind all others.
CALLBACKS: dict[str, type[Callback]] = {
    "checkpoint": Checkpoints,
    "early_stopping": EarlyStopping,
    "ema": EMA,  # restores the weights after a validation before they are measured
    "watch": Watch,
    "gradient_clipping": GradientClipping,
    "profile": StepProfile,
    "progress": Progress,
}
ALWAYS: list[type[Callback]] = [ExactResume]  # they have no key


class CommandLine(LightningCLI):
    """LightningCLI whose runs live in ``runs/NAME/VERSION``; ``argv`` is what `expand_args` returns."""

    run: Run | None = None

    def __init__(self, argv: list[str], command: str | None = None) -> None:
        try:
            super().__init__(
                LightningModule,
                save_config_callback=RunMetadata,
                parser_class=Parser.of([command or argv[0], *argv[1:]]),
                subclass_mode_model=True,
                seed_everything_default=42,
                auto_configure_optimizers=False,
                trainer_defaults={"num_sanity_val_steps": 0, "enable_model_summary": False},
                args=argv,
            )
        finally:
            finish_wandb()
            run = self.run  # one that a mistake ends before it starts leaves no folder behind
            if run is not None and run.first and not run.resumed and not (run.folder / "config.yaml").is_file():
                shutil.rmtree(run.folder, ignore_errors=True)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {name: keys for name, keys in LightningCLI.subcommands().items() if name != "predict"}

    def add_core_arguments_to_parser(self, parser: Parser) -> None:
        super().add_core_arguments_to_parser(parser)
        if PROGRAM.data is not None:  # then `data: {root: FOLDER}` and `--data.root FOLDER` need no class_path
            parser.set_defaults({"data": {"class_path": PROGRAM.data}})

    def add_arguments_to_parser(self, parser: Parser) -> None:
        add = parser.add_argument
        add("--name", type=str, default="run", help="Name of the run; by default the config's file name.")
        add("--runs_dir", type=str, default="runs", help="Folder of all runs.")
        add("--resume", type=str | None, default=None, help="'latest' or a VERSION: resume that run of this name.")
        add("--wandb", type=WandbMode, default="auto", help="Weights & Biases; auto: online with credentials.")
        add("--evaluate", type=bool, default=True, help="Evaluate the best checkpoint on val and test after training.")
        add("--tensorboard", type=bool, default=False, help="Write TensorBoard's files as well.")
        for key, callback in (CALLBACKS | {key: load(path) for key, path in PROGRAM.callbacks.items()}).items():
            parser.add_lightning_class_args(callback, key)

    def _parse_ckpt_path(self) -> None:
        """Not Lightning's way, where a checkpoint's hyper-parameters silently win over the command line."""

    def before_instantiate_classes(self) -> None:
        """Check the checkpoint before anything is built; make the paths absolute that travel in it."""
        config = self.config[self.subcommand]
        if config.ckpt_path is not None:
            if config.get("resume"):
                raise UserError("--resume and --ckpt_path exclude each other; leave one of them out.")
            read_checkpoint(config.ckpt_path)
        elif self.subcommand != "fit":
            raise UserError(f"--ckpt_path FILE is missing. Example: {self.subcommand} --ckpt_path {BEST}")
        if config.get("data"):
            arguments = config.data.get("init_args") or {}
            for key in getattr(load(config.data.class_path), "path_arguments", ()):
                given = arguments.get(key)
                if isinstance(given, list):
                    arguments[key] = [str(Path(path).expanduser().absolute()) for path in given]
                elif given:
                    arguments[key] = str(Path(given).expanduser().absolute())

    def instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        with skip_pretrained_download(bool(config.ckpt_path or config.get("resume"))):
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self.config[self.subcommand]
        trainer, fit = config.trainer, self.subcommand == "fit"
        if trainer.fast_dev_run:
            return make_trainer(super().instantiate_trainer, trainer, **kwargs)
        if fit and config.resume:
            self.run = find_run(config.runs_dir, config.name, config.resume)
        else:
            self.run = start_run(config.runs_dir, config.name, "" if fit else self.subcommand, trainer.num_nodes)
        rows, step = 0, None
        if self.run.resumed:
            path, step, rows = latest_valid_checkpoint(self.run)
            self.config_init[self.subcommand].ckpt_path = str(path)
        self.save_config_kwargs = {"run": self.run}
        loggers = make_loggers(self.run, config.wandb if fit else "off", config.tensorboard, rows, step)
        given = self.config_init[self.subcommand].trainer.logger
        loggers += given if isinstance(given, list) else [given] if given not in (None, True, False) else []
        kwargs |= {"logger": loggers, "default_root_dir": str(self.run.folder)}
        return make_trainer(super().instantiate_trainer, trainer, **kwargs)

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        """Add only the callbacks that have something to do: `enabled`, and `applies` to the data module."""
        switches = {"enable_progress_bar": ProgressBar, "enable_checkpointing": Checkpoint}
        off = tuple(kind for key, kind in switches.items() if config.get(key) is False)
        # A run that averaged its weights is resumed through the callback.
        needed = (EMA,) if self.config_init[self.subcommand].ckpt_path else ()
        kept = [
            callback
            for callback in callbacks
            if (getattr(callback, "enabled", True) or isinstance(callback, needed))
            and getattr(callback, "applies", lambda data: True)(self.datamodule)
            and not isinstance(callback, off)
        ]
        given = config.get("callbacks") or []
        config["callbacks"] = given if isinstance(given, list) else [given]
        if not getattr(self.datamodule, "use_distributed_sampler", True):  # it has samplers of its own
            config["use_distributed_sampler"] = False
        return super()._instantiate_trainer(config, [*kept, *(make() for make in ALWAYS)])

    def before_fit(self) -> None:
        """Refuse to resume with another optimizer or scheduler."""
        checkpoint = self.config_init["fit"].ckpt_path
        if checkpoint is None:
            return
        self._dump_config()
        before, now = (dict(walk(tree["model"])) for tree in (read_checkpoint(checkpoint).config, self.config_dump))
        for key in sorted(before.keys() | now.keys()):
            if re.search(r"(optimizer|scheduler)\S*class_path$", key) and before.get(key) != now.get(key):
                raise UserError(
                    "A resumed run keeps its optimizer and scheduler: "
                    f"model.{key} {before.get(key)} -> {now.get(key)}.\n"
                    f"Start a new run from its weights instead: --model.init_args.init_from {checkpoint}"
                )

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except (Stop, KeyboardInterrupt, SystemExit) as stop:  # Lightning turns one into the other
            terminate_children(self.trainer)
            raise Stop(getattr(stop, "number", signal.SIGINT), *resume_command(self.run, STOP.requeued)) from None
        except Exception as error:
            mistake = explain_failure(error, self.trainer, self.config_init[subcommand].ckpt_path)
            terminate_children(self.trainer)
            if STOP.received and not isinstance(error, UserError):  # caused by a signal that went to all processes
                raise Stop(STOP.received, *resume_command(self.run)) from error
            if mistake is None:
                raise
            raise mistake from error

    def fit(self, model: LightningModule, **kwargs: Any) -> None:
        """Train, then evaluate the best checkpoint, then print the results and where they are."""
        trainer, run = self.trainer, self.run
        if trainer.is_global_zero:
            count = sum(p.numel() for p in model.parameters() if p.requires_grad)
            print(f"{type(model).__name__}: {count:,} parameters; run: {run.folder if run else 'not kept'}")
        trainer.fit(model, **{**kwargs, "weights_only": True})  # checkpoints are read without running code in them
        if run is None:
            return
        scores = {key: float(value) for key, value in trainer.callback_metrics.items()}
        keeper = next((c for c in trainer.callbacks if isinstance(c, Checkpoints) and c.best_model_path), None)
        kind = "Best" if keeper is not None and keeper.monitor else "Newest"
        stops = [c.stopping_reason_message for c in trainer.callbacks if isinstance(c, EarlyStopping)]
        facts: dict[str, Any] = {"Stopped early": stops[0] if stops else None, "Run": run.folder}
        title = f"{run.name} after {trainer.global_step} steps"
        if keeper is not None:
            best = run.folder / "checkpoints" / "best.ckpt"
            facts[f"{kind} checkpoint"] = best
            if is_sharded(trainer):  # Lightning cannot wrap sharded weights once more, to evaluate them
                title += " (last validation)"
                facts["Test"] = f"python -m {PROGRAM.name} test --ckpt_path {best}"
            elif self.config.fit.evaluate:
                title += f" ({kind.lower()} checkpoint)"
                scores |= self._evaluate(model, keeper.best_model_path)
            facts |= PROGRAM.next_steps(run.folder, best, model)
        if trainer.is_global_zero:
            print_scores(scores, facts | {"Upload to W&B": upload_command(run)}, title)

    def _evaluate(self, model: LightningModule, checkpoint: str) -> dict[str, float]:
        """The metrics of a checkpoint on the splits that there are."""
        scores: dict[str, float] = {}
        splits = getattr(self.datamodule, "splits", {})
        steps = {"val": ("validation_step", self.trainer.validate), "test": ("test_step", self.trainer.test)}
        for split, (step, evaluate) in steps.items():
            there = is_overridden(f"{split}_dataloader", self.datamodule or model) and splits.get(split, True)
            if there and is_overridden(step, model):
                options = {"datamodule": self.datamodule, "ckpt_path": checkpoint, "weights_only": True}
                scores |= evaluate(model, verbose=False, **options)[0]
        return scores

    def test(self, model: LightningModule, **kwargs: Any) -> None:
        """Evaluate a checkpoint, then print the results."""
        evaluate = getattr(self.trainer, self.subcommand)
        results = evaluate(model, **{**kwargs, "verbose": False, "weights_only": True})
        if self.trainer.is_global_zero and results:
            print_scores(results[0], {"Run": self.run and self.run.folder}, title=self.subcommand)

    validate = test


def main(argv: list[str]) -> int:
    """Run ``fit``, ``validate`` or ``test``."""
    silence_warnings()
    with STOP.handled():
        CommandLine(expand_args(argv))
    return 0
