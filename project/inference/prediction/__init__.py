"""Using a trained network: a checkpoint and pictures in, restored pictures out."""
