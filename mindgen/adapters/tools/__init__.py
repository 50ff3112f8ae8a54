"""What people do with adapters besides serving them: merge, convert, compare."""
