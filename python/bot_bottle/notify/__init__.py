"""Who is told that something is pending, when, and how? A message links to the proposal; it never decides."""
