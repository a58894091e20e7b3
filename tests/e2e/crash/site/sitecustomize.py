"""Python imports this by itself where this folder is on PYTHONPATH: so the product needs to know nothing of it."""

from tests.e2e.crash import killer

killer.install()
