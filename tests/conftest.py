pytest_plugins = ["tests.postgres", "tests.stores"]
