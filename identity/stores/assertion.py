"""The identity store of those who have no directory: a person's groups are what the last sign-in said."""


class AssertionStore:
    """Knows nothing of its own; `refreshes` tells the caller to keep the groups of the last sign-in."""

    refreshes = False

    def groups_of(self, subject: str, email: str) -> frozenset[str] | None:
        """Never to be asked; raises NotImplementedError."""
        raise NotImplementedError("this identity store does not refresh: keep what the sign-in said")
