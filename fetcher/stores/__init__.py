"""Where a mirror is kept."""
