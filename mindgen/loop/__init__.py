"""From prompts to texts: requests, streams, and the processes of replicas and nodes, above the engine."""
