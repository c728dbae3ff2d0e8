"""Relax crystals: options, the relaxer, checks of results, calibrated errors."""
