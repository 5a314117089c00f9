"""The benchmark: the broker, the API server alone and OpenBao's kubernetes engine, side by side."""
