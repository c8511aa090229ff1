"""``fit``, ``validate`` and ``test``: Lightning's command line, with a run's folder and short errors around it."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, LearningRateMonitor, ProgressBar
from lightning.pytorch.cli import LightningCLI

from project.callbacks.hint_curve import HintCurve
from project.callbacks.hint_sweep import HintSweep
from project.callbacks.histogram import InputHistogram
from project.callbacks.samples import Samples
from project.callbacks.score_curves import ScoreCurves
from project.data import ImageDataModule
from workbench.arguments import complete
from workbench.callbacks.checkpoints import Checkpoints
from workbench.callbacks.clipping import GradientClipping
from workbench.callbacks.early_stopping import EarlyStopping
from workbench.callbacks.ema import EMA
from workbench.callbacks.metadata import RunMetadata
from workbench.callbacks.profile import StepProfile
from workbench.callbacks.progress import Progress
from workbench.callbacks.resume import ExactResume
from workbench.checkpoint import read_checkpoint
from workbench.console import silence_warnings
from workbench.errors import UserError
from workbench.loggers import finish_wandb, make_loggers
from workbench.machines import end_others, explain, make_trainer
from workbench.mistakes import Parser
from workbench.pretrained import skip_pretrained_download
from workbench.report import print_scores
from workbench.resume import compare, newest_whole
from workbench.run import Run, find_run, start_run
from workbench.sharding import is_sharded
from workbench.signals import STOP, Stop
from workbench.summary import how_to_go_on, summarize
from workbench.watch.activations import Activations
from workbench.watch.dead_units import DeadUnits
from workbench.watch.gan import GANMonitor
from workbench.watch.gradient_flow import GradientFlow
from workbench.watch.health import Health
from workbench.watch.throughput import Throughput
from workbench.watch.update_ratio import UpdateRatio

# Each has a key of its own, so that `--early_stopping.patience 5` works; the default is what every run has.
CALLBACKS: dict[str, tuple[type, dict[str, Any]]] = {
    "checkpoint": (Checkpoints, {}),
    "early_stopping": (EarlyStopping, {}),
    "gradient_flow": (GradientFlow, {}),  # before what clips
    "gradient_clipping": (GradientClipping, {}),
    "ema": (EMA, {}),
    "samples": (Samples, {}),
    "hint_curve": (HintCurve, {}),
    "hint_sweep": (HintSweep, {}),
    "score_curves": (ScoreCurves, {}),
    "input_histogram": (InputHistogram, {}),
    "dead_units": (DeadUnits, {}),
    "activations": (Activations, {}),
    "update_ratio": (UpdateRatio, {}),
    "game": (GANMonitor, {}),
    "throughput": (Throughput, {}),
    "health": (Health, {}),  # behind what measures
    "profile": (StepProfile, {}),
    "learning_rate": (LearningRateMonitor, {"logging_interval": "step"}),
    "progress": (Progress, {}),
}

SWITCHES = {"enable_progress_bar": ProgressBar, "enable_checkpointing": Checkpoint}


class CommandLine(LightningCLI):
    """LightningCLI whose runs live in ``runs/NAME/VERSION``."""

    run: Run | None = None

    def __init__(self, argv: list[str]) -> None:
        super().__init__(
            LightningModule,
            ImageDataModule,
            save_config_callback=RunMetadata,
            parser_class=Parser,
            subclass_mode_model=True,
            seed_everything_default=42,
            auto_configure_optimizers=False,
            trainer_defaults={
                "use_distributed_sampler": False,  # the data module has samplers of its own
                "num_sanity_val_steps": 0,
                "enable_model_summary": False,
            },
            args=argv,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {name: keys for name, keys in LightningCLI.subcommands().items() if name != "predict"}

    def add_arguments_to_parser(self, parser: Parser) -> None:
        parser.add_argument(
            "--name", type=str, default="run", help="Name of the run; by default the config's file name."
        )
        parser.add_argument("--runs_dir", type=str, default="runs", help="Folder of all runs.")
        parser.add_argument(
            "--resume", type=str | None, default=None, help="'latest' or a VERSION: go on with that run of this name."
        )
        parser.add_argument(
            "--wandb",
            type=Literal["auto", "online", "offline", "off"],
            default="auto",
            help="Weights & Biases; auto is online where there are credentials, otherwise offline.",
        )
        parser.add_argument("--tensorboard", type=bool, default=False, help="Write TensorBoard's files as well.")
        for key, (callback, defaults) in CALLBACKS.items():
            parser.add_lightning_class_args(callback, key)
            parser.set_defaults({f"{key}.{name}": value for name, value in defaults.items()})

    def _parse_ckpt_path(self) -> None:
        """Not Lightning's way, where a checkpoint's hyper-parameters silently win over the command line."""

    def before_instantiate_classes(self) -> None:
        """Look at the checkpoint before anything is made; say where the images are, wherever that is read."""
        config = self.config[self.subcommand]
        if config.ckpt_path is not None:
            if config.get("resume"):
                raise UserError("--resume and --ckpt_path both say where to go on from; leave one of them out.")
            read_checkpoint(config.ckpt_path)
        elif self.subcommand != "fit":
            raise UserError(
                f"'{self.subcommand}' scores a checkpoint, and none is given.\n"
                "Name it: --ckpt_path runs/NAME/latest/checkpoints/best.ckpt"
            )
        for key in (
            "root",
            "target_root",
            "exclude",
            "extra_pairs",
        ):  # they travel in the checkpoint, which is used from anywhere
            config.data[key] = _absolute(config.data[key])

    def instantiate_classes(self) -> None:
        """Make everything; weights that a checkpoint holds are not downloaded before."""
        config = self.config[self.subcommand]
        with skip_pretrained_download(bool(config.ckpt_path or config.get("resume"))):
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self.config[self.subcommand]
        trainer = config.trainer
        if trainer.fast_dev_run:
            return make_trainer(super().instantiate_trainer, trainer, **kwargs)
        fit = self.subcommand == "fit"
        if fit and config.resume:
            self.run = find_run(config.runs_dir, config.name, config.resume)
        else:
            self.run = start_run(config.runs_dir, config.name, "" if fit else self.subcommand, trainer.num_nodes)
        try:
            rows, step = 0, None
            if self.run.resumed:
                found = newest_whole(self.run)
                rows, step = found.rows, found.step
                self.config_init[self.subcommand].ckpt_path = str(found.path)
            self.save_config_kwargs = {"run": self.run}
            loggers = make_loggers(self.run, config.wandb if fit else "off", config.tensorboard, rows, step)
            given = self.config_init[self.subcommand].trainer.logger
            loggers += given if isinstance(given, list) else [given] if given not in (None, True, False) else []
            folder = str(self.run.folder)
            kwargs |= {"logger": loggers, "default_root_dir": folder}
            return make_trainer(super().instantiate_trainer, trainer, **kwargs)
        except UserError:
            self._leave_nothing_empty()
            raise

    def before_fit(self) -> None:
        """Say where the configuration differs from that of the checkpoint that the run goes on from."""
        checkpoint = self.config_init["fit"].ckpt_path
        if checkpoint is None:
            return
        self._dump_config()
        compare(checkpoint, self.config_dump, tell=self.trainer.is_global_zero)

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        """Add what every run has; Lightning refuses a callback for what is switched off."""
        off = tuple(kind for key, kind in SWITCHES.items() if config.get(key) is False)
        kept = [callback for callback in callbacks if not isinstance(callback, off)]
        given = config.get("callbacks") or []
        config["callbacks"] = [ExactResume(), *(given if isinstance(given, list) else [given])]
        return super()._instantiate_trainer(config, kept)

    def _run_subcommand(self, subcommand: str) -> None:
        fit = subcommand == "fit"
        try:
            super()._run_subcommand(subcommand)
        except (Stop, KeyboardInterrupt, SystemExit) as stop:  # Lightning turns one into the other
            number = getattr(stop, "number", signal.SIGINT)
            end_others(self.trainer)
            raise Stop(number, *(how_to_go_on(self.run, STOP.requeued) if fit else [])) from None
        except Exception as error:
            mistake = explain(error, self.trainer, self.config_init[subcommand].ckpt_path)
            end_others(self.trainer)
            if STOP.received and not isinstance(error, UserError):  # broken by a signal that went to all processes
                raise Stop(STOP.received, *(how_to_go_on(self.run) if fit else [])) from error
            if mistake is None:
                raise
            raise mistake from error
        finally:
            finish_wandb()
            self._leave_nothing_empty()

    def _leave_nothing_empty(self) -> None:
        """A run that a mistake ends before it starts leaves no folder behind."""
        run = self.run
        if run is not None and run.first and not run.resumed and not (run.folder / "config.yaml").is_file():
            shutil.rmtree(run.folder, ignore_errors=True)

    def fit(self, model: LightningModule, **kwargs: Any) -> None:
        """Train, then test the best checkpoint, then say what came out and where it is."""
        if self.trainer.is_global_zero:
            count = sum(p.numel() for p in model.parameters() if p.requires_grad)
            print(f"{type(model).__name__}: {count:,} parameters; run: {self.run.folder if self.run else 'not kept'}")
        self.trainer.fit(model, **_safe(kwargs))
        if self.run is None:
            return
        scores = {key: float(value) for key, value in self.trainer.callback_metrics.items()}
        best = next((c.best_model_path for c in self.trainer.callbacks if isinstance(c, Checkpoints)), "")
        if best and not is_sharded(self.trainer):  # Lightning cannot wrap sharded weights once more, to score them
            options = _safe({"datamodule": self.datamodule, "ckpt_path": best, "verbose": False})
            scores |= self.trainer.validate(model, **options)[0]
            if self.datamodule.splits["test"]:  # a share of 0 in data.fractions leaves none
                scores |= self.trainer.test(model, **options)[0]
        if self.trainer.is_global_zero:
            summarize(self.run, self.trainer, scores, Path(best) if best else None)

    def test(self, model: LightningModule, **kwargs: Any) -> None:
        self._score(self.trainer.test(model, **{**_safe(kwargs), "verbose": False}))

    def validate(self, model: LightningModule, **kwargs: Any) -> None:
        self._score(self.trainer.validate(model, **{**_safe(kwargs), "verbose": False}))

    def _score(self, results: list[dict[str, float]]) -> None:
        if self.trainer.is_global_zero and results:
            print_scores(results[0], {"Run": self.run and self.run.folder}, title=f"{self.subcommand}")


def main(argv: list[str]) -> int:
    """Run ``fit``, ``validate`` or ``test``.

    Raises:
        UserError: For a mistake in the configuration or the command line.
    """
    silence_warnings()
    with STOP.handled():
        argv = complete(argv)
        Parser.command, Parser.words, Parser.callbacks = argv[0], argv[1:], list(CALLBACKS)
        CommandLine(argv)
    return 0


def _safe(options: dict[str, Any]) -> dict[str, Any]:
    """Read checkpoints without running code that may lie in them."""
    return {**options, "weights_only": True}


def _absolute(path: str | list[str] | None) -> str | list[str] | None:
    if isinstance(path, list):
        return [_absolute(one) for one in path]
    return str(Path(path).expanduser().absolute()) if path else path
