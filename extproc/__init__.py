"""The sidecar: Envoy's ext_proc streams in, kept turns out. Users never wait for it."""
