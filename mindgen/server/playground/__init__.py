"""The page at `/`: files that browsers load, and what it is told of the server."""
