"""Models on disk, as users name them: folders, files, those that were fetched, and what is known of each."""
