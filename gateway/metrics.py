"""Metrics of the gateway: rate, errors and duration of each route, how the command bus does, and the orders themselves
(business_metrics)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from gateway.business_metrics import BusinessMetrics

BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """One registry an application, so that several can live in one process (tests)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "route")
        self.requests = Counter(
            "oms_http_requests_total", "Requests answered.", (*labels, "status"), registry=self.registry
        )
        self.errors = Counter(
            "oms_http_errors_total", "Requests answered with a problem.", (*labels, "type"), registry=self.registry
        )
        self.seconds = Histogram(
            "oms_http_request_duration_seconds",
            "From the first byte of the request to the last of the answer.",
            labels,
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.waiting = Gauge("oms_commands_waiting", "Commands without an outcome yet.", registry=self.registry)
        self.lag = Gauge("oms_consumer_lag", "Messages not read yet.", ("feed",), registry=self.registry)
        self.ready = Gauge("oms_dependency_ready", "1 when it is.", ("dependency",), registry=self.registry)
        self.view_lag = Gauge(
            "oms_view_lag_seconds", "How old what is read from the view is at most.", ("view",), registry=self.registry
        )
        self.business = BusinessMetrics()
        self.registry.register(self.business)
        ProcessCollector(registry=self.registry)
