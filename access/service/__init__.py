"""The use cases a person triggers, a module per journey; each is one unit of work."""
