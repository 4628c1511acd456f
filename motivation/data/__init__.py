"""Data sets, loaders that can go on inside an epoch, and data sets that lie on the training device."""
