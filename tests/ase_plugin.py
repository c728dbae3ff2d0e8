"""For pytest: ASE's own tests of BFGS, FIRE and LBFGS get ours instead."""

import ase.optimize

from deeprelax_ase import DeepRelaxBFGS, DeepRelaxFIRE, DeepRelaxLBFGS

ase.optimize.BFGS = DeepRelaxBFGS
ase.optimize.FIRE = DeepRelaxFIRE
ase.optimize.LBFGS = DeepRelaxLBFGS
