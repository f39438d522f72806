"""From decoded chips to batches: sampling, the chip cache, Ray Data streams."""
