"""Using a trained network: a checkpoint and images in, restored images out."""
