"""Read pairs from run folders, trajectories and published data sets."""
