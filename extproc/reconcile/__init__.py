"""Envoy's access log against what the workers saw: names every turn that was served but not captured.

    Envoy ── access log (gRPC) ──▶ als ─▶ entries ─┐
                                                   ├─▶ matcher ─▶ reconciler: log, metrics, ledger
    workers ── one line an exchange ──▶ feed ──────┘

The matcher is pure. ``docs/access-log.md`` says what each result means for the person on call.
"""
