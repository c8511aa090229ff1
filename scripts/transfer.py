"""Does it pay to start from other weights? The same steps on a hundred pairs, from scratch and from earlier learning.

    python scripts/transfer.py --first_inputs LINES --first_targets COLORS --inputs LINES --targets COLORS
    python scripts/transfer.py --photographs FOLDER --inputs LINES --targets COLORS

First a network learns from other pairs, or to denoise photographs; then three of the same kind learn from the pairs:
one from scratch, one from those weights, and one from those with its encoder frozen. Written are transfer.csv and
transfer.png, the validation scores over the steps.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
CONFIG = REPOSITORY / "configs" / "finetune.yaml"
RUNS = {
    "from scratch": ["--model.finetune.encoder_rate", "1"],
    "fine-tuned": ["--model.finetune.encoder_rate", "0.5"],
    "encoder frozen": ["--model.finetune.freeze_stages", "all"],
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python scripts/transfer.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    first = parser.add_mutually_exclusive_group(required=True)
    first.add_argument("--photographs", help="folder to pretrain on, as a denoiser")
    first.add_argument("--first_inputs", help="folder to pretrain on, with --first_targets")
    first.add_argument("--start", type=Path, help="checkpoint of an earlier pretraining by this script, in its place")
    parser.add_argument("--first_targets", help="the partners of --first_inputs")
    parser.add_argument("--inputs", required=True, help="folder of the pairs' inputs")
    parser.add_argument("--targets", required=True, help="folder of their targets, of the same names")
    parser.add_argument(
        "--pairs", type=int, default=100, help="pairs to learn from; 40 more are for validation and test"
    )
    parser.add_argument("--pretrain_steps", type=int, default=800)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--side", type=int, default=64, help="pixels of the pairs' shorter side")
    parser.add_argument("--lr", type=float, default=2e-3, help="of all runs")
    parser.add_argument("--output", type=Path, default=Path("runs", "transfer"))
    given = parser.parse_args()
    sys.path.insert(0, str(REPOSITORY))
    given.output.mkdir(parents=True, exist_ok=True)
    inputs, targets = take_pairs(Path(given.inputs), Path(given.targets), given.pairs, given.output / "pairs")
    start = given.start or pretrain(given)
    data = pairs(inputs, targets, given.side)
    data += ["--data.fractions", "[0.7143, 0.1857, 0.1]", "--trainer.val_check_interval", "20"]
    curves = {}
    for title, words in RUNS.items():
        weights = [] if title == "from scratch" else ["--model.init_from", str(start)]
        run = fit(title.replace(" ", "_"), given, given.steps, [*plain(), *data, *words, *weights])
        curves[title] = curve(run)
    curves["doing nothing"] = curve(run, "val/psnr_baseline")
    write(curves, given)


def take_pairs(inputs: Path, targets: Path, count: int, folder: Path) -> tuple[Path, Path]:
    """Copy the first so many pairs by name, and 40 more."""
    made = folder / "inputs", folder / "targets"
    shutil.rmtree(folder, ignore_errors=True)
    for source, copy in zip((inputs, targets), made, strict=True):
        copy.mkdir(parents=True)
        for path in sorted(path for path in source.iterdir() if path.is_file())[: count + 40]:
            shutil.copy(path, copy)
    return made


def pairs(inputs: str | Path, targets: str | Path, side: int) -> list[str]:
    """Whole images of one size, in pairs."""
    words = ["--data.root", str(inputs), "--data.target_root", str(targets), "--data.crops_per_image", "1"]
    return words + [word for key in ("resize", "crop", "eval_crop") for word in (f"--data.{key}", str(side))]


def plain() -> list[str]:
    """The configuration without weights to download, and with nothing frozen."""
    network = ["--model.network.weights", "none", "--model.network.stages", "3"]
    network += ["--model.network.widths", "[16, 24, 32, 48]"]
    tuning = {"freeze_stages": "0", "freeze_norms": "false", "unfreeze": "{}"}
    tuning |= {"encoder_rate": "1", "stage_decay": "1"}
    return network + [word for key, value in tuning.items() for word in (f"--model.finetune.{key}", value)]


def pretrain(given: argparse.Namespace) -> Path:
    """Teach a network what is asked for first; its checkpoint."""
    if given.photographs:
        words = ["--data.root", given.photographs, "--data.crop", "64", "--data.target_root", "null"]
        words += ["--data.pairs", "project.data.pairs.GaussianNoise", "--data.eval_crop", "128"]
    else:
        words = [*pairs(given.first_inputs, given.first_targets, given.side), "--data.fractions", "[0.9, 0.05, 0.05]"]
    run = fit("first", given, given.pretrain_steps, [*plain(), *words])
    return run / "checkpoints" / "last.ckpt"


def fit(name: str, given: argparse.Namespace, steps: int, words: list[str]) -> Path:
    """Train; the run's folder."""
    from project.__main__ import main as project

    command = ["fit", "--config", str(CONFIG), "--name", name, "--runs_dir", str(given.output), "--wandb", "off"]
    command += ["--trainer.max_steps", str(steps), "--model.optimizer.lr", str(given.lr), *words]
    if project(command):
        raise SystemExit(1)
    return (given.output / name / "latest").resolve()


def curve(run: Path, key: str = "val/psnr") -> list[tuple[int, float]]:
    """Step and value of a column of a run's metrics."""
    with (run / "metrics.csv").open(newline="") as file:
        return [(int(row["step"]), float(row[key])) for row in csv.DictReader(file) if row.get(key)]


def write(curves: dict[str, list[tuple[int, float]]], given: argparse.Namespace) -> None:
    """Draw and tabulate."""
    import matplotlib.pyplot as plt

    with (given.output / "transfer.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "step", "psnr"])
        writer.writerows((title, *point) for title, points in curves.items() for point in points)
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for title, points in curves.items():
        axes.plot(*zip(*points, strict=True), label=title, linestyle=":" if title == "doing nothing" else "-")
    axes.set(xlabel="step", ylabel="PSNR of the validation images (dB)", title=f"{given.pairs} pairs to learn from")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(given.output / "transfer.png", dpi=120)
    for title, points in curves.items():
        print(f"{title:<16}" + "".join(f"{value:>8.2f}" for _, value in points))
    print(f"Written: {given.output / 'transfer.csv'}, {given.output / 'transfer.png'}")


if __name__ == "__main__":
    main()
