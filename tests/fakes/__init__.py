"""Stand-ins for what the tests cannot have: an engine environment and a model."""
