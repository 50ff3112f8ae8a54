"""The faces of other projects: MindFormers' AutoModel and AutoTokenizer, streamers, names of options."""
