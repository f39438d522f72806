"""Training: the plain loop, its Ray worker, the fleet of variants."""
