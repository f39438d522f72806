"""The ensemble: calibration, combination and thresholds of several members' probabilities."""
