"""What a user reads after a mistake: at most ten lines, the cause first, the nearest valid name, exit code 2."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import yaml

from project.__main__ import main
from workbench.errors import UserError, choose

CONFIG = Path(__file__).parents[2] / "configs" / "denoise.yaml"


def _network(config: dict) -> dict:
    return config["model"]["init_args"]["network"]


IN_FILE = {
    "unknown argument of a class": (
        lambda c: _network(c)["init_args"].update(widht=3),
        [
            "mine.yaml: model.init_args.network.init_args.widht",
            "Did you mean model.init_args.network.init_args.widths?",
        ],
    ),
    "unknown class": (
        lambda c: _network(c).update(class_path="project.networks.UNett"),
        ["UNett", "Did you mean project.networks.UNet?"],
    ),
    "unknown module": (lambda c: _network(c).update(class_path="projct.UNet"), ["No module named 'projct'"]),
    "unknown optimizer": (
        lambda c: c["model"]["init_args"].update(optimizer={"class_path": "torch.optim.Adamm"}),
        ["Adamm", "Did you mean torch.optim.Adam?"],
    ),
    "unknown argument of an optimizer": (
        lambda c: c["model"]["init_args"]["optimizer"]["init_args"].update(lrr=1),
        ["lrr", "Did you mean model.init_args.optimizer.init_args.lr?"],
    ),
    "missing argument of a scheduler": (
        lambda c: c["model"]["init_args"].update(scheduler={"class_path": "torch.optim.lr_scheduler.StepLR"}),
        ["Missing in the configuration: model.init_args.scheduler.init_args.step_size"],
    ),
    "impossible value for an optimizer": (
        lambda c: c["model"]["init_args"]["optimizer"]["init_args"].update(lr=-1.0),
        ["model.optimizer", "Invalid learning rate: -1.0"],
    ),
    "an interval longer than an epoch": (
        lambda c: c["trainer"].update(check_val_every_n_epoch=1, val_check_interval=10**6),
        ["val_check_interval` (1000000)", "check_val_every_n_epoch"],
    ),
    "unknown key of the trainer": (
        lambda c: c["trainer"].update(max_stepps=3),
        ["mine.yaml: trainer.max_stepps", "Did you mean trainer.max_steps?"],
    ),
    "wrong type in a class": (
        lambda c: c["data"]["pairs"]["init_args"].update(sigma="loud"),
        ["data.pairs.init_args.sigma", "float"],
    ),
    "unknown choice": (
        lambda c: _network(c)["init_args"].update(activation="relo"),
        ["activation: 'relo' is not known", "relu"],
    ),
}

ON_COMMAND_LINE = {
    "unknown option": (["--data.batchsize", "3"], ["--data.batchsize", "Did you mean data.batch_size?"]),
    "unknown option of a callback": (["--early_stopping.patiense=3"], ["Did you mean early_stopping.patience?"]),
    "wrong type": (["--data.batch_size", "many"], ["data.batch_size: expected int. Got value: many"]),
    "no such device": (["--trainer.accelerator", "gppu"], ["gppu", "--trainer.accelerator auto"]),
    "no such folder": (["--data.root", "nowhere"], ["--data.root", "nowhere does not exist"]),
    "nothing to resume": (["--resume", "latest"], ["no run 'latest'", "without --resume"]),
    "channels that do not fit": (["--data.channels", "1"], ["in_channels", "data.channels"]),
    "a crop larger than the images": (["--data.crop", "5000"], ["astronaut.png", "--data.on_bad_image skip"]),
}


def check(words: list[str], expected: list[str], capsys: pytest.CaptureFixture[str], lines: int = 10) -> None:
    assert main(words) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert len(text.splitlines()) <= lines
    assert "Traceback" not in text
    for part in expected:
        assert part in text, text


@pytest.mark.parametrize("case", IN_FILE)
def test_mistake_in_a_config(case, capsys):
    change, expected = IN_FILE[case]
    config = yaml.safe_load(CONFIG.read_text("utf-8"))
    change(config)
    Path("mine.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    check(["fit", "--config", "mine.yaml"], expected, capsys)


@pytest.mark.parametrize("case", ON_COMMAND_LINE)
def test_mistake_on_the_command_line(case, capsys, tmp_path):
    words, expected = ON_COMMAND_LINE[case]
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
    assert "The disk is full (runs/x)" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        main(["fit"])
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("fit", "validate", "test", "check", "predict"))
    assert len(text.splitlines()) < 20


@pytest.mark.parametrize("name", ["leaky_relu", "LeakyReLU", "Leaky-ReLU"])
def test_a_name_is_chosen_in_any_spelling(name):
    assert choose("activation", name, ["relu", "leaky_relu"]) == "leaky_relu"
    with pytest.raises(UserError, match=r"norm: 'bach' is not known\. Did you mean 'batch'\?\nKnown: batch, group"):
        choose("norm", "bach", ["batch", "group"])
