"""The commands of `blockqnn`, one file for each or for a few that belong together."""
