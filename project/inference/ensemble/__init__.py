"""The ensemble command: several checkpoints, or one in eight positions, answering together."""
