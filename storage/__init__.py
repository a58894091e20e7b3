"""Where Passport remembers: SQLAlchemy on SQLite or PostgreSQL, behind the ports of ``access``."""
