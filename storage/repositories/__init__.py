"""The repositories of a unit of work, a module per family; each holds its conversions between rows and values."""
