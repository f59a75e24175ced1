"""The same workload against one or two layouts, and what may be said of the difference."""
