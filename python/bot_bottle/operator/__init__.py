"""What does an operator see and do, on whatever screen? The command line, a terminal app and a dashboard share it.

Nothing here knows how a screen is drawn: text comes with a tone, a review comes in sections, and each face has its own
way to show them. What an agent wrote is in the text as it was written; a face makes it ``visible`` as it draws.
"""
