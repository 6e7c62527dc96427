"""What AWS starts: one script per job type and two Lambda handlers."""
