"""Scripts that an engine's interpreter runs; apart, lest dynctl's own modules hide the engine's by their names."""
