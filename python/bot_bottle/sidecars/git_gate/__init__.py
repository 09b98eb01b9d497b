"""The gate that scans what the agent pushes."""
