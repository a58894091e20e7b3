"""What can be wrong with the database itself; each text is one plain sentence for whoever runs Passport.

PassportError
├── StoreBusyError      another process has the SQLite database, or the same name in a PostgreSQL one
├── StoreUrlError       the database URL cannot be used
├── SchemaError         the tables are not those of this version
├── SealError           a sealed value does not open
└── UnreadableError     a row is not one that this version of Passport writes
"""

from access.errors import PassportError


class StoreBusyError(PassportError):
    """Another Passport process has this SQLite database, or this one's name."""


class StoreUrlError(PassportError):
    """The database URL names no database that Passport can use."""


class SchemaError(PassportError):
    """The database's tables are not those of this version of Passport."""


class SealError(PassportError):
    """A sealed value was moved, altered, or sealed with a key that is not known."""


class UnreadableError(PassportError):
    """A row cannot be read: Passport, or this version of it, did not write it so."""
