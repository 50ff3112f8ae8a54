"""The JSON that requests and responses are made of."""
