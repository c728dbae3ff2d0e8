"""Relaxations that others published in their packages, and how they were collected."""
