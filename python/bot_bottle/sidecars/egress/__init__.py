"""The proxy that stops secrets from leaving."""
