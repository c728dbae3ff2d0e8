"""Trained weights; see the model card in README.md."""
