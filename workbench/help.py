"""``fit --help`` on one screen and a half: the options that people change. ``--help --all`` shows every one."""

from __future__ import annotations

import textwrap
from typing import Any

RUN = ("config", "name", "runs_dir", "resume", "ckpt_path", "wandb", "tensorboard", "seed_everything")
TRAINER = (
    "max_steps",
    "max_epochs",
    "max_time",
    "accelerator",
    "devices",
    "precision",
    "val_check_interval",
    "check_val_every_n_epoch",
    "limit_val_batches",
    "accumulate_grad_batches",
    "overfit_batches",
    "fast_dev_run",
)
SELDOM = ("learning_rate",)
"""Callbacks that nobody sets anything of, and keys of others."""
MORE = """
Model (--model.init_args.KEY): the keys of the classes that the config names, such as
  --model.init_args.network.init_args.width 48       a network's argument
  --model.init_args.optimizer.init_args.lr 1e-3      an optimizer's argument
  python -m project {command} --model.help project.models.ImageRestorer
  python -m project {command} --model.help project.models.ImageRestorer --model.network.help project.networks.UNet

  python -m project {command} --config FILE --print_config      the whole resolved configuration
  python -m project {command} --help --all                      every option there is"""


def short_help(parser: Any, command: str, callbacks: list[str]) -> str:
    """The options of ``fit``, ``validate`` and ``test`` that people change.

    Args:
        parser: The command's own parser.
        command: Its name.
        callbacks: Keys of the callbacks.
    """
    actions = {
        action.dest: action for action in parser._actions if action.dest == "config" or action.default != "==SUPPRESS=="
    }
    data = [key for key in actions if key.startswith("data.")]
    shown = set(callbacks) - set(SELDOM)
    groups = {
        "Run": [key for key in RUN if key in actions],
        "Data": data,
        "Trainer (Lightning's own)": [f"trainer.{key}" for key in TRAINER if f"trainer.{key}" in actions],
        "Callbacks": [key for key in actions if key.split(".")[0] in shown and "." in key and key not in SELDOM],
    }
    lines = [f"usage: python -m project {command} --config FILE [--config FILE ...] [--key value ...]"]
    for title, keys in groups.items():
        lines += ["", f"{title}:"]
        for key in keys:
            lines += _entry(actions[key])
    return "\n".join(lines) + "\n" + MORE.format(command=command) + "\n"


def _entry(action: Any) -> list[str]:
    text = " ".join((action.help or "").replace("%%", "%").split())
    text = text.split("(type:")[0].strip().removesuffix("Default: ``None``.").strip()
    if action.dest.split(".")[0] in ("ckpt_path", "trainer"):
        text = text.split(". ")[0].rstrip(".") + "."  # Lightning's own texts run on
    default = action.default
    if isinstance(default, int | float | str | bool):
        text += f" [{default}]"
    label = f"  --{action.dest}"
    body = textwrap.wrap(text, 84) or [""]
    first = f"{label:<34} {body[0]}" if len(label) < 34 else f"{label}\n{'':<34} {body[0]}"
    return [first, *(f"{'':<34} {line}" for line in body[1:])]
