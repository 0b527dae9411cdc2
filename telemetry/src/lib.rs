//! Logs, OTLP traces, Prometheus metrics and the admin listener that serves them
