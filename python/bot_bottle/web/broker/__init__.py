"""What may a bottle ask of the host over HTTP? The broker."""
