"""Files of pairs: read, checked, disturbed and mixed for training."""
