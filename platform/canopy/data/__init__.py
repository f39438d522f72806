"""The data plane: sources, validation, splits, the stream."""
