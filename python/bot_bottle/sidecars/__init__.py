"""The daemons that run beside a bottle: supervise (MCP), egress, git-gate; each is its own module with a ``main``."""
