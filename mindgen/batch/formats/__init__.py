"""The kinds of files that rows come from."""
