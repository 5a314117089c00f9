"""What Prometheus is told: counted when it happens, or asked for at each scrape; docs/metrics.md lists it."""
