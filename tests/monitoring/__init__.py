"""Alerts and the dashboard, against a real promtool and a real Prometheus."""
