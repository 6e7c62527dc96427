"""What AWS starts: one script per job type and three Lambda handlers."""
