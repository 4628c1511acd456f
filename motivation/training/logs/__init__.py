"""What a run tells: console, progress bar, CSV files, wandb. Each is a `motivation.training.hooks.Hook`."""
