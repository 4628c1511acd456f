"""Which way of training gives the best small model, the best large one, or both, for the FLOPs that there are."""
