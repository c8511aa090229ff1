"""The callback that watches a model while it trains, and names what is wrong."""

from __future__ import annotations

import sys
import time
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from workbench.callbacks.progress import print_above_bar
from workbench.distributed import is_sharded
from workbench.errors import UserError
from workbench.findings import Finding, RuleEngine, Setting, training_rules
from workbench.lightning_private import is_accumulating, logs_now, steps_done, was_updated
from workbench.watch.activations import MOMENTS
from workbench.watch.model_info import PENALTY, collect, trainable_parameters
from workbench.watch.probe import Probe
from workbench.watch.recorder import FINDINGS, THROUGHPUT, Recorder
from workbench.watch.steps import StepMonitor

DENSE = 10  # the first steps are all measured: a run that goes wrong at once is over before a second one of others
EVALUATE_EVERY = 50
EARLY = (10, 20, 35, 50)  # steps after which rules are evaluated as well: most faults show at once
CHARTS = ("dead", "saturated", "gradient", "update")  # what the loggers show of each layer
MEBIBYTE = 2**20
RECORDED = 5  # what the model logs is recorded at every fifth step


class Watch(Callback):
    """Measures gradients, updates, activations, a GAN's balance, learning rates and throughput of any LightningModule,
    and applies rules that name faults with advice. Training is the same to the last bit with and without it.

    A fault is printed in one line, once a cause, written to ``findings.jsonl`` in the run's folder (if there is a
    logger) and sent as an alert to Weights & Biases; a note is only written. docs/faults.md explains each code. Values
    of single layers go to ``measurements.csv`` at validations, and as charts and histograms to Weights & Biases and
    TensorBoard. Under FSDP it switches itself off.

    Args:
        every_n_steps: Measure gradients and updates at every n-th step, and at each of the first ten; 0: never.
        every_n_validations: Measure activations at every n-th validation, and a few times before the first; 0: never;
            if both are 0, nothing at all is measured.
        on_fault: stop ends the run at the first fault.
    """

    order = -1  # before a callback that clips gradients; see ExactResume

    def __init__(
        self, every_n_steps: int = 10, every_n_validations: int = 1, on_fault: Literal["continue", "stop"] = "continue"
    ) -> None:
        if min(every_n_steps, every_n_validations) < 0 or on_fault not in ("continue", "stop"):
            limits = "watch.every_n_steps and watch.every_n_validations must be 0 or more"
            raise UserError(f"{limits}, and watch.on_fault continue or stop.")
        self.every_n_steps, self.every_n_validations, self.on_fault = every_n_steps, every_n_validations, on_fault
        self.findings: list[Finding] = []  # what was found so far, oldest first
        self.engine = RuleEngine(training_rules())
        self.recorder: Recorder | None = None  # None: off
        self._loaded: dict[str, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        state, self._loaded = self._loaded, {}
        if is_sharded(trainer) or not (self.every_n_steps or self.every_n_validations):
            return
        self.recorder = Recorder(trainer, collect(trainer, pl_module), state.get("recorder"))
        self.recorder.append(FINDINGS, [])
        self.engine.faults, self.engine.notes = (list(state.get(name, [])) for name in ("faults", "notes"))
        self.steps = StepMonitor(self.recorder, trainer, pl_module, state.get("steps"))
        self.probe = Probe(self.recorder, pl_module, state.get("probe"))
        self.throughput = Throughput(self.recorder)
        self._validations = state.get("validations", 0)
        self._epoch = -1
        self._logged: dict[str, Tensor] = {}

    def _due(self, trainer: Trainer) -> bool:
        """Whether this step is to be measured; only the first process measures what is the same in all."""
        step = steps_done(trainer)  # counted from 1 it is a multiple at the steps that loggers take as well
        due = self.every_n_steps > 0 and (step < DENSE or (step + 1) % self.every_n_steps == 0)
        return due and trainer.is_global_zero

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.recorder is None:
            return
        if trainer.current_epoch != self._epoch:  # by now the model has unfrozen what is trained from this epoch on
            self._epoch, model = trainer.current_epoch, self.recorder.history.model
            found = trainable_parameters(trainer, pl_module)
            model.unfrozen = {name: p for name, p in found.items() if name not in model.parameters}
        if self.every_n_validations:
            self.probe.on_train_batch_start(trainer, batch)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        if self.recorder is not None:
            self.steps.before_backward(self._due(trainer))

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.recorder is not None:
            self.steps.after_backward()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if self.recorder is not None and trainer.is_global_zero:
            self.steps.before_step(optimizer, steps_done(trainer), self._due(trainer))

    def on_train_batch_end(self, trainer: Trainer, model: LightningModule, outputs: Any, batch: Any, *_: Any) -> None:
        if self.recorder is None:
            return
        step = steps_done(trainer)
        self.steps.end_batch(step, self._due(trainer))
        if trainer.is_global_zero:
            self._take_losses(trainer, outputs, step)
        self.throughput.count(batch)
        if logs_now(trainer):
            self.recorder.flush()
            self.throughput.log(model.device)
        done = step + 1
        if not is_accumulating(trainer) and (done in EARLY or done % EVALUATE_EVERY == 0):
            self._evaluate(trainer)

    def _take_losses(self, trainer: Trainer, outputs: Any, step: int) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor) and loss.numel() == 1:
            accumulated = trainer.accumulate_grad_batches  # Lightning has divided by it
            self.recorder.put(["loss"], loss if accumulated == 1 else loss * accumulated, step)
        logged = self._newly_logged(trainer, "train")
        if step < DENSE or (step + 1) % RECORDED == 0:  # others not even later: a resumed run would not have them
            # A model that logs only now and then may return its values from every training_step.
            given = outputs if isinstance(outputs, dict) else {}
            self._take({**logged, **{f"train/{name}": value for name, value in given.items() if name != "loss"}}, step)

    def _newly_logged(self, trainer: Trainer, split: str) -> dict[str, Any]:
        """What was logged as SPLIT/NAME or SPLIT_NAME since the last time, as SPLIT/NAME."""
        values = {n: v for n, v in trainer.callback_metrics.items() if n.startswith((f"{split}/", f"{split}_"))}
        fresh = {name: value for name, value in values.items() if was_updated(value, self._logged.get(name))}
        self._logged |= fresh
        return {f"{split}/{name[len(split) + 1 :]}": value for name, value in fresh.items()}

    def _take(self, values: dict[str, Any], step: int) -> None:
        for name, value in values.items():
            if isinstance(value, Tensor) and value.numel() == 1:
                self.recorder.put([name], value, step)
                if PENALTY.search(name):
                    penalties = self.recorder.history.model.penalties
                    penalties.setdefault(name, Setting(f"a smaller weight of {name}"))

    def on_validation_batch_end(self, trainer: Trainer, model: LightningModule, _: Any, batch: Any, *__: Any) -> None:
        if self.recorder is not None and self.every_n_validations:
            self.probe.on_validation_batch_end(batch)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.recorder is None:
            return
        if self.every_n_validations:
            self.probe.on_validation_end()
            if self._validations % self.every_n_validations == 0:
                self.probe.run(trainer)
        self._validations += 1
        if trainer.is_global_zero:
            self._take(self._newly_logged(trainer, "val"), steps_done(trainer))
            self.recorder.flush()
            latest = {name: self.recorder.history.latest(name) for name in (*CHARTS, *MOMENTS)}
            self.recorder.write_layers({**latest, **self.steps.spread()}, CHARTS)
        self._evaluate(trainer)
        self.throughput.restart()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.recorder is not None:
            self._evaluate(trainer, may_stop=False)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.recorder = self.steps = self.probe = None  # with the tensors that they hold

    def _evaluate(self, trainer: Trainer, may_stop: bool = True) -> None:
        """Apply the rules to what was measured; every process has to call it."""
        found: list[Finding] = []
        if trainer.is_global_zero:
            self.recorder.flush()
            found = self.engine.evaluate(self.recorder.history)
            self._report(trainer, found)
        if self.on_fault == "stop" and may_stop and trainer.strategy.broadcast(any(f.is_fault for f in found)):
            trainer.should_stop = True
            if trainer.is_global_zero:
                text = f"The run ends at step {steps_done(trainer) + 1} because of that fault (watch.on_fault: stop)."
                print_above_bar(trainer, text)

    def _report(self, trainer: Trainer, found: list[Finding]) -> None:
        self.findings += found
        self.recorder.append(FINDINGS, [finding.line() for finding in found])
        for finding in found:
            if not finding.is_fault:
                continue
            print_above_bar(trainer, finding.message())
            for logger in trainer.loggers:
                if isinstance(logger, WandbLogger):
                    logger.experiment.alert(title=finding.code, text=finding.message(), level="WARN")

    def state_dict(self) -> dict[str, Any]:
        if self.recorder is None:
            return self._loaded
        return {
            "recorder": self.recorder.state_dict(),
            "steps": self.steps.state_dict(),
            "probe": self.probe.state_dict(),
            "validations": self._validations,
            "faults": list(self.engine.faults),
            "notes": list(self.engine.notes),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict


class Throughput:
    """Logs ``throughput/samples_per_second`` (of all processes, validations left out), and the most memory so far:
    ``memory/host_mib`` (without data workers) and ``memory/device_mib`` (of tensors on a CUDA device). Not into
    metrics.csv, which repeats to the last digit."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.restart()

    def restart(self) -> None:
        self._since, self._samples = time.perf_counter(), 0

    def count(self, batch: Any) -> None:
        """Count the samples of a batch: the length of its first tensor."""
        self._samples += next((len(x) for x in tree_leaves(batch) if isinstance(x, Tensor) and x.ndim), 0)

    def log(self, device: torch.device) -> None:
        """Called right after values were fetched from the device, so that the time is that of whole steps."""
        trainer, seconds = self.recorder.trainer, time.perf_counter() - self._since
        if self._samples and seconds > 0 and trainer.is_global_zero:
            values = {"throughput/samples_per_second": self._samples * trainer.world_size / seconds}
            if sys.platform != "win32":
                import resource

                unit = 1 if sys.platform == "darwin" else 1024
                values["memory/host_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEBIBYTE
            if device.type == "cuda":
                values["memory/device_mib"] = torch.cuda.max_memory_allocated(device) / MEBIBYTE
            row = [str(steps_done(trainer)), *(f"{value:.1f}" for value in values.values())]
            header = ["step", *(name.rpartition("/")[2] for name in values)]
            self.recorder.append(THROUGHPUT, [",".join(row)], ",".join(header))
            self.recorder.log(values, to_csv=False)
        self.restart()
