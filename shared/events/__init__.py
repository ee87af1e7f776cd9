"""The events that the services and the shop's systems exchange, and how they look on the wire.

- `topics`    the topics, who writes and reads them, what their records are keyed by
- `base`      what every payload has in common, and the field types (times, money, ids, bounded text)
- `orders`, `parcels`, `stock`    what the shop's systems tell us ("upstream" gathers them)
- `contacts`, `incidents`         what the detector emits
- `registry`  type name to model, topic and key: the one place that knows all events
- `envelope`  CloudEvents 1.0 over Kafka: `decode`, `encode`, `to_message`, `event_id`
- `schemas`, `asyncapi`, `compatibility`    the published schemas, generated from the models

To add an event: write its class (`TYPE`, `TOPIC`, `KEY`) into one of the modules that `registry` lists, then
run `python -m shared.events.schemas` and `python -m shared.events.asyncapi`.
"""
