"""The server on the machines of a Ray cluster: one port, behind which Ray Serve keeps the replicas."""
