"""How is a bottle launched: what do its sidecars need, and how is each tool told?"""
