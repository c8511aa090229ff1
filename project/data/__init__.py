"""Pictures on disk -> batches of (input, target). Knows nothing of networks."""

from project.data.batch import Pair, Raw
from project.data.module import ImageDataModule

__all__ = ["ImageDataModule", "Pair", "Raw"]
