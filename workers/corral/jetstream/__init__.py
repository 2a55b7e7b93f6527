"""Corral's own thin layer over NATS JetStream. Nothing outside this package imports nats."""
