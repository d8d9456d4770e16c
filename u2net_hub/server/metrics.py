"""The numbers that Prometheus collects."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The numbers of one app. Each app has its own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "u2net_requests", "Requests by route and status.", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "u2net_request_seconds",
            "Seconds from the first byte of a request to the last byte of its answer.",
            ["route"],
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
            registry=self.registry,
        )
        self.queue = Gauge(
            "u2net_queue_length", "Requests that wait or are worked on.", registry=self.registry
        )
        self.pixels = Gauge("u2net_pixels", "Pixels of the photos in memory.", registry=self.registry)
        self.batch = Histogram(
            "u2net_batch_photos",
            "Photos that the network processed at once.",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=self.registry,
        )
        self.network = Histogram(
            "u2net_network_seconds",
            "Seconds of the network for a batch.",
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        self.left = Counter(
            "u2net_clients_left", "Clients that left before the answer.", registry=self.registry
        )

    def saw_batch(self, photos: int, seconds: float) -> None:
        """Count a batch of the network."""
        self.batch.observe(photos)
        self.network.observe(seconds)

    def text(self) -> bytes:
        """Write all numbers in the text format of Prometheus."""
        return generate_latest(self.registry)
