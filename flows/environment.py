"""Quiet, local defaults for a run that is started from a terminal.

Called by the ``rise`` command before Prefect is imported, never on import. Every default yields to
what the user has already set.
"""

import os

QUIET_DEFAULTS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # the command prints its own lines and errors; a server still gets the run's log
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",  # the embedded server's tracebacks at exit
    "DASK_LOGGING__DISTRIBUTED": "error",
    "TOKENIZERS_PARALLELISM": "false",
}


def quiet_defaults(*, verbose: bool = False) -> None:
    """Set what is not set yet; ``verbose`` lets Prefect's own log lines through."""
    for name, value in QUIET_DEFAULTS.items():
        os.environ.setdefault(name, value)
    if verbose:
        os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "INFO"
