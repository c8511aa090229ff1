"""``fit``, ``validate`` and ``test``: Lightning's command line, with a run's folder and short errors around it."""

from __future__ import annotations

import logging
import re
import shlex
import shutil
import warnings
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, LearningRateMonitor, ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from project.arguments import complete, differences
from project.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from project.callbacks.clipping import GradientClipping
from project.callbacks.ema import EMA
from project.callbacks.hint_curve import HintCurve
from project.callbacks.hint_sweep import HintSweep
from project.callbacks.histogram import InputHistogram
from project.callbacks.progress import Progress
from project.callbacks.record import Record
from project.callbacks.samples import Samples
from project.callbacks.score_curves import ScoreCurves
from project.callbacks.stopping import Patience
from project.data import ImageDataModule
from project.errors import UserError
from project.loggers import finish_wandb, make_loggers, upload_command
from project.mistakes import Parser
from project.models.checkpoint import misfit, read_checkpoint
from project.report import print_scores
from project.runs import Run, find_run, start_run

# Each has a key of its own, so that `--early_stopping.patience 5` works; the default is what every run has.
CALLBACKS: dict[str, tuple[type, dict[str, Any]]] = {
    "best_checkpoint": (BestCheckpoint, {}),
    "last_checkpoint": (LastCheckpoint, {}),
    "early_stopping": (Patience, {}),
    "gradient_clipping": (GradientClipping, {}),
    "ema": (EMA, {}),
    "samples": (Samples, {}),
    "hint_curve": (HintCurve, {}),
    "hint_sweep": (HintSweep, {}),
    "score_curves": (ScoreCurves, {}),
    "input_histogram": (InputHistogram, {}),
    "learning_rate": (LearningRateMonitor, {"logging_interval": "step"}),
    "progress": (Progress, {}),
}

SWITCHES = {"enable_progress_bar": ProgressBar, "enable_checkpointing": ModelCheckpoint}

NOISE = (
    "is not able to be used in the current environment",  # tips about other devices and loggers
    "does not have many workers",
    "exists and is not empty",
    "The number of training batches",
    "You requested to overfit",  # "enabled shuffling": how our sampler looks to Lightning
    "LightningCLI's args parameter",
    "callbacks used to create the checkpoint",  # the clock of a run with max_time: a test needs none
    "The dirpath has changed",  # a test, and a run from another's checkpoint, have folders of their own
    "isinstance\\(treespec, LeafSpec\\)",
)


class CommandLine(LightningCLI):
    """LightningCLI whose runs live in ``runs/NAME/VERSION``."""

    run: Run | None = None

    def __init__(self, argv: list[str]) -> None:
        super().__init__(
            LightningModule,
            ImageDataModule,
            save_config_callback=Record,
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
        """Look at the checkpoint before anything is made; say where the pictures are, wherever that is read."""
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
        for key in ("root", "target_root", "exclude"):  # they travel in the checkpoint, which is used from anywhere
            config.data[key] = _absolute(config.data[key])

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self.config[self.subcommand]
        if config.trainer.fast_dev_run:
            return self._make_trainer(**kwargs)
        step = None
        if self.subcommand == "fit" and config.resume:
            self.run = find_run(config.runs_dir, config.name, config.resume)
            self.config_init[self.subcommand].ckpt_path = str(self.run.last_checkpoint)
            step = _step_of(self.run.last_checkpoint)
        else:
            self.run = start_run(config.runs_dir, config.name, "" if self.subcommand == "fit" else self.subcommand)
        self.save_config_kwargs = {"run": self.run}
        wandb = config.wandb if self.subcommand == "fit" else "off"
        loggers = make_loggers(self.run, wandb, config.tensorboard, step)
        given = self.config_init[self.subcommand].trainer.logger
        loggers += given if isinstance(given, list) else [given] if given not in (None, True, False) else []
        return self._make_trainer(logger=loggers, default_root_dir=str(self.run.folder), **kwargs)

    def before_fit(self) -> None:
        """Say where the configuration differs from that of the checkpoint that the run goes on from."""
        checkpoint = self.config_init["fit"].ckpt_path
        if checkpoint is None:
            return
        self._dump_config()
        found = differences(read_checkpoint(checkpoint).config, self.config_dump)
        for difference in found:
            if re.match(r"model\.\S*(optimizer|scheduler)\S*class_path ", difference):
                raise UserError(
                    f"A run goes on with the optimiser and the scheduler that it has: {difference}.\n"
                    f"Start a new run from its weights instead: --model.init_args.init_from {checkpoint}"
                )
        if found and self.trainer.is_global_zero:
            print("Other than in the checkpoint: " + ", ".join(found[:8]) + (" ..." if len(found) > 8 else ""))

    def _make_trainer(self, **kwargs: Any) -> Trainer:
        try:
            return super().instantiate_trainer(**kwargs)
        except (ValueError, TypeError, MisconfigurationException) as error:
            self._leave_nothing_empty()
            message = f"The trainer section does not fit this machine or itself: {error}"
            if re.search("accelerator|backend|device|gpu", str(error), re.IGNORECASE):
                message += "\n--trainer.accelerator auto --trainer.devices auto takes what this machine has."
            raise UserError(message) from error

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        """Lightning refuses a callback for what is switched off."""
        off = [kind for key, kind in SWITCHES.items() if config.get(key) is False]
        return super()._instantiate_trainer(config, [c for c in callbacks if not isinstance(c, tuple(off))])

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except (KeyboardInterrupt, SystemExit):  # Lightning turns Ctrl-C into an exit
            raise KeyboardInterrupt(*self._how_to_go_on()) from None
        except RuntimeError as error:
            if "loading state_dict" in str(error):
                raise misfit(self.config_init[subcommand].ckpt_path, error) from error
            raise
        except ValueError as error:
            if "`val_check_interval`" in str(error):
                raise UserError(
                    f"An epoch has fewer than trainer.val_check_interval, {self.trainer.val_check_interval}, batches.\n"
                    "Set trainer.check_val_every_n_epoch: null to count over epochs, or a smaller interval."
                ) from error
            raise
        finally:
            finish_wandb()
            self._leave_nothing_empty()

    def _leave_nothing_empty(self) -> None:
        """A run that a mistake ends before it starts leaves no folder behind."""
        if self.run is not None and not self.run.resumed and not (self.run.folder / "config.yaml").is_file():
            shutil.rmtree(self.run.folder, ignore_errors=True)

    def fit(self, model: LightningModule, **kwargs: Any) -> None:
        """Train, then test the best checkpoint, then say what came out and where it is."""
        if self.trainer.is_global_zero:
            count = sum(p.numel() for p in model.parameters() if p.requires_grad)
            print(f"{type(model).__name__}: {count:,} parameters; run: {self.run.folder if self.run else 'not kept'}")
        self.trainer.fit(model, **_safe(kwargs))
        if self.run is None:
            return
        scores = {key: float(value) for key, value in self.trainer.callback_metrics.items()}
        best = next((c.best_model_path for c in self.trainer.callbacks if isinstance(c, BestCheckpoint)), "")
        if best:
            options = _safe({"datamodule": self.datamodule, "ckpt_path": best, "verbose": False})
            scores |= self.trainer.validate(model, **options)[0]
            if self.datamodule.splits["test"]:  # a share of 0 in data.fractions leaves none
                scores |= self.trainer.test(model, **options)[0]
        if self.trainer.is_global_zero:
            self._report(scores, Path(best) if best else None)

    def _how_to_go_on(self) -> list[str]:
        if self.subcommand != "fit" or self.run is None or not self.run.last_checkpoint.is_file():
            return []
        where = [] if self.run.root == Path("runs") else ["--runs_dir", str(self.run.root)]
        words = ["fit", "--name", self.run.name, "--resume", self.run.version, *where]
        return [f"Go on with: python -m project {shlex.join(words)}"]

    def test(self, model: LightningModule, **kwargs: Any) -> None:
        self._score(self.trainer.test(model, **{**_safe(kwargs), "verbose": False}))

    def validate(self, model: LightningModule, **kwargs: Any) -> None:
        self._score(self.trainer.validate(model, **{**_safe(kwargs), "verbose": False}))

    def _score(self, results: list[dict[str, float]]) -> None:
        if self.trainer.is_global_zero and results:
            print_scores(results[0], {"Run": self.run and self.run.folder}, title=f"{self.subcommand}")

    def _report(self, scores: dict[str, float], best: Path | None) -> None:
        folder = self.run.folder
        samples = folder / "samples" / "latest.png"
        facts = {
            "Stopped early": self._why_stopped_early(),
            "Run": folder,
            "Best checkpoint": best and _short(best),
            "Samples": samples if samples.is_file() else None,
            "Upload to W&B": upload_command(self.run),
            "Next": best
            and f"python -m project predict --ckpt_path {_short(best)} --input FOLDER --output {folder / 'restored'}",
        }
        print_scores(scores, facts, title=f"{self.run.name} after {self.trainer.global_step} steps (best checkpoint)")

    def _why_stopped_early(self) -> str | None:
        reasons = [c.stopping_reason_message for c in self.trainer.callbacks if isinstance(c, EarlyStopping)]
        return next((reason.removesuffix(" Signaling Trainer to stop.") for reason in reasons if reason), None)


def main(argv: list[str]) -> int:
    """Run ``fit``, ``validate`` or ``test``.

    Raises:
        UserError: For a mistake in the configuration or the command line.
    """
    quieten()
    argv = complete(argv)
    Parser.command, Parser.words, Parser.callbacks = argv[0], argv[1:], list(CALLBACKS)
    CommandLine(argv)
    return 0


def quieten() -> None:
    """Leave out what libraries say that a user can do nothing about."""
    for text in NOISE:
        warnings.filterwarnings("ignore", message=f".*{text}.*")
    for name in ("utilities.rank_zero", "trainer.connectors.signal_connector"):
        logging.getLogger(f"lightning.pytorch.{name}").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)


def _safe(options: dict[str, Any]) -> dict[str, Any]:
    """Read checkpoints without running code that may lie in them."""
    return {**options, "weights_only": True}


def _absolute(path: str | list[str] | None) -> str | list[str] | None:
    if isinstance(path, list):
        return [_absolute(one) for one in path]
    return str(Path(path).expanduser().absolute()) if path else path


def _step_of(checkpoint: Path) -> int:
    import torch

    return torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["global_step"]


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
