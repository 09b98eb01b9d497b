"""Which fixtures do several of the test files share?"""

pytest_plugins = ["cli_process", "store_process", "broker_process", "transports", "git_pushes"]
