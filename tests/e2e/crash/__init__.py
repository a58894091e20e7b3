"""Passport is killed everywhere, and everything comes right all the same."""
