"""A deployment over several nodes, started, watched and ended from one place over the system's OpenSSH client."""
