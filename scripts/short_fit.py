"""``python -m project fit`` with a callback of one's own behind all others, and without the evaluation at its end."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback

import project.__main__  # noqa: F401 its data and callbacks are the defaults
from workbench.cli import CommandLine
from workbench.console import silence_warnings
from workbench.parser import expand_args


def short_fit(callback: Callback, words: list[str]) -> CommandLine:
    """Train as the command line says; the models and the data that it built are attributes of what is returned."""

    class Short(CommandLine):
        def instantiate_trainer(self, **kwargs: Any) -> Any:
            trainer = super().instantiate_trainer(**kwargs)
            trainer.callbacks.append(callback)
            return trainer

        def fit(self, model: Any, **kwargs: Any) -> None:
            self.trainer.fit(model, **kwargs)

    silence_warnings()
    return Short(expand_args(["fit", *words, "--wandb=off"]))
