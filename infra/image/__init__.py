"""The container image: how it is built, and what is removed from it."""
