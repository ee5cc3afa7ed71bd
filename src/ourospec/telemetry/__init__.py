"""What a run tells of itself: events, and the observers that write or show them. Imports no torch."""
