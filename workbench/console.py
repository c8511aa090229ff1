"""What libraries say that a user can do nothing about."""

from __future__ import annotations

import logging
import warnings

from lightning.pytorch.utilities import rank_zero_only

NOISE = (
    "is not able to be used in the current environment",  # tips about other devices and loggers
    "does not have many workers",
    "exists and is not empty",
    "The number of training batches",
    "You requested to overfit",  # "enabled shuffling": how our sampler looks to Lightning
    "LightningCLI's args parameter",
    "callbacks used to create the checkpoint",  # the clock of a run with max_time: a test needs none
    "The dirpath has changed",  # a test, and a run from another's checkpoint, have folders of their own
    "AMP with fp16 is not supported on CPU",  # an error of ours follows
    "isinstance\\(treespec, LeafSpec\\)",
)


def silence_warnings() -> None:
    """Leave it out."""
    for text in NOISE:
        warnings.filterwarnings("ignore", message=f".*{text}.*")
    for name in ("utilities.rank_zero", "trainer.connectors.signal_connector"):
        logging.getLogger(f"lightning.pytorch.{name}").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)


@rank_zero_only
def rank_zero_print(text: str) -> None:
    """Print from rank 0. Not by logging, which a program may turn down unnoticed."""
    print(text, flush=True)
