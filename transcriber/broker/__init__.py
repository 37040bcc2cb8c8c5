"""NATS: the wire protocol, the connection, where audio comes from and where results go."""
