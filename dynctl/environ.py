"""Names of environment variables that several rooms know."""

RUN_ID_VARIABLE = "DYNCTL_RUN_ID"
"""The run a process belongs to: how every process of a run is found again."""
PROCESS_VARIABLE = "DYNCTL_PROCESS"
"""The planned process that a process belongs to."""
NO_PLUGINS = "PYDANTIC_DISABLE_PLUGINS"
"""Set for dynctl itself, never for its workers."""
