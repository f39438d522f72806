"""The fleet: all trainings of an experiment as Ray Train runs, side by side."""
