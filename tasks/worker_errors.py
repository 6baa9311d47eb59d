"""What goes wrong with worker processes themselves, not with the work."""


class WorkersLostError(RuntimeError):
    """A piece of work takes every worker with it, or a cluster has no worker."""
