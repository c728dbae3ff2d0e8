"""Measure weights on files of pairs, and fit their calibration."""
