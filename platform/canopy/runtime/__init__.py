"""The environment of every process: Ray and its internals, the console, logging, the memory allocator."""
