"""Backbones by name, attention, heads."""
