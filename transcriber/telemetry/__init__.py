"""OpenTelemetry: metrics, traces, and logs that carry trace ids."""
