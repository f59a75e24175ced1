"""Faults under load: what is done to a deployment, what must hold, what was seen."""
