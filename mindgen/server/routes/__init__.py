"""The paths of the server, a file for each concern."""
