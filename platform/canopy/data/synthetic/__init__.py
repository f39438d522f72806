"""The generator of Amazon-like chips: their labels, their pixels, and the best reachable score."""
