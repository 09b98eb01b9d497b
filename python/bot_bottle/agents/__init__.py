"""How do coding agents ask before they act, which answer do they expect, and where is it configured whom they ask?"""
