"""What the monitors cost: one run in which they are switched on and off in turns, a validation in each turn."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from typing import Any

from timing import Moment, print_comparison

ON, OFF = "monitors on", "monitors off"


def compare_monitors(config: str, steps: int, rounds: int, rest: list[str]) -> None:
    """Time a step of `fit`, its share of a validation included, with all monitors at work and with none.

    Args:
        config: The configuration.
        steps: Of a turn, between two validations.
        rounds: Pairs of turns, after a first turn that does not count: it looks more often than the others.
        rest: More words of the command line.
    """
    from lightning.pytorch import Callback

    import project.__main__  # noqa: F401 its data and callbacks are the defaults
    from workbench.cli import CommandLine, silence_warnings
    from workbench.parser import expand_args
    from workbench.watch import Watch

    silence_warnings()
    order = [ON] + [name for number in range(rounds) for name in ((ON, OFF), (OFF, ON))[number % 2]]
    turns: dict[str, list[Moment]] = defaultdict(list)

    class Switch(Callback):
        """Comes last, so that a turn begins when the others are through with what came before."""

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.all = list(trainer.callbacks)
            self.none = [callback for callback in self.all if not isinstance(callback, Watch)]
            self.done = 0

        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step % steps:
                return
            now, turn = Moment.now(), trainer.global_step // steps
            if turn > 1:
                turns[order[turn - 1]].append(now.since(self.start, steps))
            self.start = now
            trainer.callbacks = self.all if turn == len(order) or order[turn] == ON else self.none

    class Timed(CommandLine):
        def instantiate_trainer(self, **kwargs: Any) -> Any:
            trainer = super().instantiate_trainer(**kwargs)
            trainer.callbacks.append(Switch())
            return trainer

        def fit(self, model: Any, **kwargs: Any) -> None:
            self.trainer.fit(model, **kwargs)

    with tempfile.TemporaryDirectory() as runs:
        words = ["fit", "--config", config, "--runs_dir", runs, f"--trainer.max_steps={steps * len(order) + 1}"]
        words += [f"--trainer.val_check_interval={steps}", "--trainer.check_val_every_n_epoch=null", "--wandb=off"]
        words += ["--trainer.max_time=null", "--trainer.max_epochs=-1", "--checkpoint.every_n_minutes=0", *rest]
        Timed(expand_args(words))
    print_comparison(f"a step of {config}", {ON: turns[ON], OFF: turns[OFF]}, "ms", 1000)
