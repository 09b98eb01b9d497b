"""The operator's screen in a terminal: what is pending, what it would change, and the keys that decide it.

Built on Textual, which only this package imports. Everything that is read, worded and decided is ``operator``'s.
"""
