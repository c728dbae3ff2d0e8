"""The matrices that stand for the five components of a second-order tensor."""

import math

import numpy as np

_HALF, _SIXTH = math.sqrt(1 / 2), math.sqrt(1 / 6)
BASIS = np.zeros((9, 5))
"""Flat symmetric traceless matrices; e3nn's are the root of 5 times `wigner_3j(1, 1, 2)`."""
BASIS[[2, 6], 0] = _HALF  # xz
BASIS[[1, 3], 1] = _HALF  # xy
BASIS[[0, 4, 8], 2] = np.array([-1.0, 2.0, -1.0]) * _SIXTH
BASIS[[5, 7], 3] = _HALF  # yz
BASIS[[0, 8], 4] = np.array([-1.0, 1.0]) * _HALF  # zz less xx
