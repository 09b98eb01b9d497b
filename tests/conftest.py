"""Which fixtures do several of the test files share?"""

import signal

from hypothesis import HealthCheck, settings

pytest_plugins = [
    "cli_process",
    "store_process",
    "broker_process",
    "dashboard_process",
    "dashboard_browser",
    "hostile_host",
    "transports",
    "git_pushes",
    "git_gates",
    "git_https",
]

# Programs interrupted in the tests inherit what this process does. A shell starts what runs in its background deaf.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No example is too slow for a loaded machine.
settings.register_profile("any-speed", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-speed")
