"""Training: the loss and the loop."""
