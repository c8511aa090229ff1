"""Images on disk -> batches of (input, target). Knows nothing of networks."""

from project.data.batch import Batch, RawBatch
from project.data.datamodule import ImageDataModule
