"""How is a bottle launched: what its sidecars need, and how each tool is told."""
