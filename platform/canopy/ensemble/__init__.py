"""Everybody's probabilities into one tuned decision."""
