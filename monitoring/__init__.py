"""Makes what operators of Prometheus and Grafana are given, from the broker's own definitions and rules."""
