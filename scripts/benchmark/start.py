"""Time from the start of the process to the end of its first training step, and the most memory it held by then."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile

from timing import Moment, print_comparison

# Run in a process of its own, which ends with its first step.
FIRST_STEP = """
import json, os, resource, sys, time
from lightning.pytorch import Callback
import project.__main__
from workbench.cli import CommandLine, silence_warnings
from workbench.parser import expand_args

class End(Callback):
    def on_train_batch_end(self, *_):
        use = resource.getrusage(resource.RUSAGE_SELF)
        print(json.dumps({"cpu": use.ru_utime + use.ru_stime, "memory": use.ru_maxrss}), flush=True)
        os._exit(0)

class Timed(CommandLine):
    def instantiate_trainer(self, **kwargs):
        trainer = super().instantiate_trainer(**kwargs)
        trainer.callbacks.append(End())
        return trainer

silence_warnings()
Timed(expand_args(sys.argv[1:]))
"""

IMPORTS = """
import json, resource
import lightning.pytorch
use = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"cpu": use.ru_utime + use.ru_stime, "memory": use.ru_maxrss}))
"""


def compare_starts(config: str, rounds: int, rest: list[str]) -> None:
    """Time to the first step with nothing cached and with everything cached, against the import of Lightning alone."""
    sides: dict[str, list[Moment]] = {"first step, cold": [], "first step, cached": [], "import lightning.pytorch": []}
    memory: dict[str, int] = {}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            words = ["fit", "--config", config, f"--runs_dir={folder}/runs", f"--data.cache_dir={folder}/cache", *rest]
            for name, program, arguments in (
                ("first step, cold", FIRST_STEP, words),
                ("first step, cached", FIRST_STEP, words),
                ("import lightning.pytorch", IMPORTS, []),
            ):
                time, kilobytes = _run(program, [*arguments, "--wandb=off"] if arguments else [])
                sides[name].append(time)
                memory[name] = max(memory.get(name, 0), kilobytes)
    print_comparison(f"start of {config}", sides, "s")
    print("  most memory: " + ", ".join(f"{name} {kilobytes / 1024:.0f} MB" for name, kilobytes in memory.items()))


def _run(program: str, arguments: list[str]) -> tuple[Moment, int]:
    start = Moment.now()
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
    wall = Moment.now().since(start).wall
    if done.returncode != 0:
        raise SystemExit(f"the timed process failed:\n{done.stderr[-2000:]}")
    last = json.loads(done.stdout.strip().splitlines()[-1])
    return Moment(wall, last["cpu"]), last["memory"]
