"""One training run: the loop, learners, evaluation, checkpoints, hooks and logs."""
