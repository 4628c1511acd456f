"""Pictures of a run: the loss of each update with the motivated stretches shaded, and the figures of each epoch."""
