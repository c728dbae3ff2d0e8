"""Data for training: files of pairs, batches, disturbances."""
