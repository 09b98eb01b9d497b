"""How do coding agents ask before they act, how do they want to be answered, and where are they told whom to ask?"""
