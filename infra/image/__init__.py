"""The container image: how it is built, and what is taken out of it."""
