"""``python -m project fit`` in a temporary folder, with one more callback and without the evaluation at its end."""

from __future__ import annotations

import tempfile
from typing import Any

from lightning.pytorch import Callback

import project.__main__  # noqa: F401 its data and callbacks are the defaults
from workbench.cli import CommandLine
from workbench.console import silence_warnings
from workbench.parser import expand_args


def short_fit(callback: Callback, words: list[str]) -> CommandLine:
    """Train as the command line says; what is returned has the model and the datamodule as attributes."""

    class Short(CommandLine):
        def instantiate_trainer(self, **kwargs: Any) -> Any:
            trainer = super().instantiate_trainer(**kwargs)
            trainer.callbacks.append(callback)
            return trainer

        def fit(self, model: Any, **kwargs: Any) -> None:
            self.trainer.fit(model, **kwargs)

    silence_warnings()
    with tempfile.TemporaryDirectory() as runs:
        return Short(expand_args(["fit", *words, "--runs_dir", runs, "--wandb=off"]))
