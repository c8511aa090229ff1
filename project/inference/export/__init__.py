"""The export command: a checkpoint as one file for other programs, checked against PyTorch, with a card beside it."""
