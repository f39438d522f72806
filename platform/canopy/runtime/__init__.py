"""What every process needs around the work: Ray, its internals, the console, logging, the allocator."""
