"""Who is told that something waits, when, and through what? A message links to the proposal; it never decides."""
