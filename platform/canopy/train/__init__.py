"""Training: the loop, its checkpoints, the fleet of Ray Train runs, monitoring."""
