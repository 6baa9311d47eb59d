"""How a run asks for what others may be writing: the part of leases that flows set and show."""

from storage.lease import Patience, Waiting, with_patience

__all__ = ["Patience", "Waiting", "with_patience"]
