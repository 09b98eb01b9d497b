"""What does the host offer over HTTP? ``broker`` is the bottles' side: each sees its own rows, and none decides."""
