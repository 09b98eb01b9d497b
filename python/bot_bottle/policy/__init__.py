"""Which questions do the operator's rules in ``<root>/policy.toml`` answer, so that nobody has to be asked?"""
