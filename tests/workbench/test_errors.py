"""What a user reads after a mistake: at most ten lines, the cause first, the nearest valid name, exit code 2."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import yaml

from project.__main__ import main
from workbench.errors import UserError, choose

CONFIG = Path(__file__).parents[2] / "configs" / "denoise.yaml"


IN_FILE = [  # key, value, what the message holds
    (
        "model.init_args.network.init_args.widht",
        3,
        ["mine.yaml: model.init_args.network.init_args.widht\nDid you mean model.init_args.network.init_args.widths?"],
    ),
    ("model.init_args.network.class_path", "project.networks.UNett", ["UNett", "Did you mean project.networks.UNet?"]),
    ("model.init_args.network.class_path", "projct.UNet", ["No module named 'projct'"]),
    ("model.init_args.optimizer.class_path", "torch.optim.Adamm", ["Adamm", "Did you mean torch.optim.Adam?"]),
    ("model.init_args.optimizer.init_args.lrr", 1, ["Did you mean model.init_args.optimizer.init_args.lr?"]),
    ("model.init_args.optimizer.init_args.lr", -1.0, ["model.optimizer", "Invalid learning rate: -1.0"]),
    (
        "model.init_args.scheduler",
        {"class_path": "torch.optim.lr_scheduler.StepLR"},
        ["Missing in the configuration: model.init_args.scheduler.init_args.step_size"],
    ),
    ("trainer.max_stepps", 3, ["mine.yaml: trainer.max_stepps", "Did you mean trainer.max_steps?"]),
    ("data.pairs.init_args.sigma", "loud", ["data.pairs.init_args.sigma", "float"]),
    ("model.init_args.network.init_args.activation", "relo", ["activation: 'relo' is not known", "relu"]),
]

ON_COMMAND_LINE = [
    (["--data.batchsize", "3"], ["--data.batchsize", "Did you mean data.batch_size?"]),
    (["--early_stopping.patiense=3"], ["Did you mean early_stopping.patience?"]),
    (["--early_stopping.monitor", "val/loss", "--early_stopping.mode", "max"], ["early_stopping.mode is max"]),
    (["--data.batch_size", "many"], ["data.batch_size: expected int. Got value: many"]),
    (["--trainer.accelerator", "gppu"], ["gppu", "--trainer.accelerator auto"]),
    (
        ["--trainer.check_val_every_n_epoch", "1", "--trainer.val_check_interval", "1000000"],
        ["val_check_interval` (1000000)", "check_val_every_n_epoch"],
    ),
    (["--data.root", "nowhere"], ["--data.root", "nowhere does not exist"]),
    (["--resume", "latest"], ["no run 'latest'", "without --resume"]),
    (["--data.channels", "1"], ["in_channels", "data.channels"]),
    (["--data.crop", "5000"], ["astronaut.png", "--data.on_bad_image skip"]),
    (["--data.crop", "null"], ["data.crop"]),
    (["--data.weights.cats", "3"], ["data.weights"]),
    (["--data.fractions", "[0.8, 0, 0.2]"], ["data.fractions"]),
    (["--checkpoint.every_n_steps=-1"], ["checkpoint.every_n_steps"]),
    (["--checkpoint.most=0"], ["checkpoint.most"]),
    (["--checkpoint.snapshots=top"], ["checkpoint.snapshots"]),
    (["--ema.decay=1.0"], ["ema.decay is 1.0"]),
    (["--ema.decay=-0.1"], ["ema.decay is -0.1"]),
    (["--watch.on_fault=explode"], ["watch.on_fault"]),
    (["--watch.every_n_steps=-1"], ["watch.every_n_steps"]),
    (["--watch.every_n_validations=-1"], ["watch.every_n_validations"]),
]


def check(words: list[str], expected: list[str], capsys: pytest.CaptureFixture[str], lines: int = 10) -> None:
    assert main(words) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert len(text.splitlines()) <= lines
    assert "Traceback" not in text
    for part in expected:
        assert part in text, text


@pytest.mark.parametrize(("key", "value", "expected"), IN_FILE)
def test_mistake_in_a_config(key, value, expected, capsys):
    config = node = yaml.safe_load(CONFIG.read_text("utf-8"))
    *parents, name = key.split(".")
    for parent in parents:
        node = node[parent]
    node[name] = value
    Path("mine.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    check(["fit", "--config", "mine.yaml"], expected, capsys)


@pytest.mark.parametrize(("words", "expected"), ON_COMMAND_LINE)
def test_mistake_on_the_command_line(words, expected, capsys, tmp_path):
    check(["fit", "--config", str(CONFIG), "--wandb", "off", *words], expected, capsys)
    assert not list(tmp_path.glob("runs/*/*/*")), "a run that never started leaves nothing behind"


FIT = ["fit", "--config", str(CONFIG)]
BEST = "runs/NAME/latest/checkpoints/best.ckpt"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fitt"], ["Did you mean fit?"]),
        (["fit"], ["--config FILE is missing. Example: python -m project fit --config configs/sharpen.yaml"]),
        (["test"], [f"--ckpt_path FILE is missing. Example: python -m project test --ckpt_path {BEST}"]),
        (["test", "--config", str(CONFIG)], ["--ckpt_path FILE is missing", f"test --ckpt_path {BEST}"]),
        (
            ["predict", "--output", "x"],
            ["--ckpt_path FILE, --input FILE is missing", f"predict --ckpt_path {BEST} --input"],
        ),
        (["export"], ["--ckpt_path FILE is missing", f"export --ckpt_path {BEST}"]),
        (["ensemble"], ["--ckpts FILE is missing", f"ensemble --ckpts {BEST}"]),
        (["inspect"], ["--ckpt_path FILE is missing", f"inspect --ckpt_path {BEST}"]),
        (["fit", "--config", str(CONFIG).replace("denoise", "denoize")], ["Did you mean", "denoise.yaml?"]),
        (["test", "--ckpt_path", "nope.ckpt"], ["There is no checkpoint nope.ckpt"]),
        (["test", "--ckpt_path", str(CONFIG)], ["is not a checkpoint"]),
        ([*FIT, "--ckpt_path", "nope.ckpt"], ["There is no checkpoint nope.ckpt"]),
        ([*FIT, "--ckpt_path", "a.ckpt", "--resume", "latest"], ["leave one of them out"]),
        ([*FIT, "--wandb", "online"], ["needs credentials", "--wandb offline"]),
        (["fit", "--resume", "latest"], ["--name NAME"]),
    ],
)
def test_mistake_before_anything_is_built(words, expected, capsys):
    Path("configs").mkdir()
    Path("configs/sharpen.yaml").write_text("{}")
    check(words, expected, capsys, lines=3)


@pytest.mark.parametrize(("text", "expected"), [("model: [\n", "line 2"), ("\0", "position 0"), ("words", "keys")])
def test_a_broken_config_is_named(text, expected, capsys):
    Path("mine.yaml").write_text(text)
    check(["fit", "--config", "mine.yaml"], ["mine.yaml", expected], capsys)


def test_a_bug_of_ours_has_a_trace_and_mistakes_of_users_have_none_without_debug(monkeypatch, capsys):
    with pytest.raises(UserError, match="There is no command"):
        main(["fitt", "--debug"])

    def fail(argv):
        raise OSError(errno.ENOSPC, "No space left on device", "runs/x") if "full" in argv else ZeroDivisionError

    monkeypatch.setattr("workbench.cli.main", fail)
    assert main(["fit", "full"]) == 2
    assert "No space left on device: runs/x" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        main(["fit"])
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("fit", "validate", "test", "check", "predict"))
    assert len(text.splitlines()) < 20


def test_a_name_is_chosen_among_those_known():
    assert choose("activation", "leaky_relu", ["relu", "leaky_relu"]) == "leaky_relu"
    with pytest.raises(UserError, match="Did you mean 'leaky_relu'"):
        choose("activation", "LeakyReLU", ["relu", "leaky_relu"])
    with pytest.raises(UserError, match=r"norm: 'bach' is not known\. Did you mean 'batch'\?\nKnown: batch, group"):
        choose("norm", "bach", ["batch", "group"])
