"""Which fixtures do several of the test files share?"""

import signal

pytest_plugins = [
    "cli_process",
    "store_process",
    "broker_process",
    "dashboard_process",
    "transports",
    "git_pushes",
    "git_gates",
]

# Programs interrupted in the tests inherit what this process does. A shell starts what runs in its background deaf.
signal.signal(signal.SIGINT, signal.default_int_handler)
