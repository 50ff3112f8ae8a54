"""The commands: a file each, and what they share; nothing else prints or ends the process."""
