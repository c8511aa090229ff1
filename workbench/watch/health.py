"""Looks at what the monitors measured, and says in plain words what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor

from workbench.errors import UserError
from workbench.findings import Finding, Knob, RuleEngine, training_rules
from workbench.lightning_private import is_accumulating, was_updated
from workbench.watch.facts import PENALTY, note_later
from workbench.watch.monitor import DENSE, Monitor
from workbench.watch.recorder import steps_done

OnFault = Literal["continue", "stop"]
FILE = "findings.jsonl"
EARLY = (10, 20, 35, 50)
"""Steps after which it looks as well: most faults show at once."""
RECORDED = 5
"""What the model logs is taken into the measurements at every fifth step."""


class Health(Monitor):
    """Applies the rules of workbench.findings to what the monitors measured, at validations and every few steps.

    A fault is written to ``findings.jsonl`` in the run's folder, told in one line on the console, once a cause, and
    sent as an alert to Weights & Biases; a note is only written. docs/faults.md has an entry for each code.

    Args:
        every_n_steps: Look at every n-th step, and at validations; 0 switches it off.
        on_fault: stop ends the run at the first fault, with its checkpoint saved; continue only tells.
    """

    def __init__(self, every_n_steps: int = 50, on_fault: OnFault = "continue") -> None:
        super().__init__("health", every_n_steps)
        if on_fault not in get_args(OnFault):
            raise UserError(f"health.on_fault is {on_fault!r}; it must be one of {', '.join(get_args(OnFault))}.")
        self.on_fault = on_fault
        self.judge = RuleEngine(training_rules())
        self.findings: list[Finding] = []
        self._known: dict[str, Tensor] = {}
        self._noted = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._noted = -1
        if self.recorder is not None:
            self._known = {}
            self.recorder.files.append(FILE, [])

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note what is trained from this epoch on; by now the model has unfrozen it."""
        if self.recorder is not None and trainer.current_epoch != self._noted:
            self._noted = trainer.current_epoch
            note_later(self.recorder.history.facts, trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take the loss of every step; look now and then."""
        if self.recorder is None:
            return
        step = steps_done(trainer)
        if trainer.is_global_zero:
            self._take_losses(trainer, outputs, step)
        done = step + 1
        if not is_accumulating(trainer) and (done in EARLY or done % self.every_n_steps == 0):
            self.look(trainer)

    def _take_losses(self, trainer: Trainer, outputs: Any, step: int) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor) and loss.numel() == 1:
            accumulated = trainer.accumulate_grad_batches  # Lightning has divided by it
            self.recorder.put(["loss"], loss if accumulated == 1 else loss * accumulated, step)
        logged, recorded = self._logged(trainer, "train/"), step < DENSE or (step + 1) % RECORDED == 0
        if not recorded:  # nor later: a run that was resumed in between would not have it
            return
        # A model that writes its figures to the log now and then alone gives them here in every batch.
        given = outputs if isinstance(outputs, dict) else {}
        found = {f"train/{name}": value for name, value in given.items() if name != "loss"}
        self._take({**logged, **found}, step)

    def _logged(self, trainer: Trainer, prefix: str) -> dict[str, Any]:
        """What was logged since the last time."""
        values = {name: value for name, value in trainer.callback_metrics.items() if name.startswith(prefix)}
        fresh = {name: value for name, value in values.items() if was_updated(value, self._known.get(name))}
        self._known |= fresh
        return fresh

    def _take(self, values: dict[str, Any], step: int) -> None:
        for name, value in values.items():
            if isinstance(value, Tensor) and value.numel() == 1:
                self.recorder.put([name], value, step)
                if PENALTY.search(name):
                    self.recorder.history.facts.penalties.setdefault(name, Knob(name))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the scores, and look."""
        if self.recorder is None or trainer.sanity_checking:
            return
        if trainer.is_global_zero:
            self._take(self._logged(trainer, "val/"), steps_done(trainer))
        self.look(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look a last time: a short run may not have been looked at since its beginning."""
        if self.recorder is not None:
            self.look(trainer, may_stop=False)

    def look(self, trainer: Trainer, may_stop: bool = True) -> None:
        """Fetch what was measured and let the rules judge it; every process has to call it."""
        found: list[Finding] = []
        if trainer.is_global_zero:
            self.recorder.flush(trainer)
            found = self.judge.evaluate(self.recorder.history)
            self._tell(trainer, found)
        if self.on_fault == "stop" and may_stop:
            self._stop(trainer, any(finding.is_fault for finding in found))

    def _tell(self, trainer: Trainer, found: list[Finding]) -> None:
        self.findings += found
        self.recorder.files.append(FILE, [finding.line() for finding in found])
        for finding in found:
            if not finding.is_fault:
                continue
            _say(trainer, finding.message())
            for logger in trainer.loggers:
                if isinstance(logger, WandbLogger):
                    logger.experiment.alert(title=finding.code, text=finding.message(), level="WARN")

    def _stop(self, trainer: Trainer, stop: bool) -> None:
        if trainer.world_size > 1:
            stop = bool(trainer.strategy.broadcast(stop))
        if not stop or trainer.should_stop:
            return
        trainer.should_stop = True
        if not trainer.checkpoint_callbacks and trainer.log_dir is not None:  # else they save when the run ends
            trainer.save_checkpoint(Path(trainer.log_dir) / "checkpoints" / "last.ckpt")
        if trainer.is_global_zero:
            _say(
                trainer,
                f"The run ends at step {steps_done(trainer) + 1} because of that fault (health.on_fault: stop); its "
                "checkpoint is saved. --health.on_fault continue goes on all the same.",
            )

    def state_dict(self) -> dict[str, Any]:
        """What was named already, which a resumed run does not repeat."""
        return {"faults": list(self.judge.faults), "notes": list(self.judge.notes)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on without repeating what was named."""
        self.judge.faults, self.judge.notes = list(state_dict["faults"]), list(state_dict["notes"])


def _say(trainer: Trainer, line: str) -> None:
    bar = trainer.progress_bar_callback
    (bar.print if bar is not None else print)(line)
