"""The fault cases of the quality goals, and where each is brought about. Files without a folder are in this one.

| case | test |
| --- | --- |
| 1 kill -9 at every commit point of the platform | `test_kill.py` |
| 1 kill -9 at every commit and provider call of the loop | `test_loop_kill.py` |
| 2 SIGSTOP past the session time-out | `test_members.py` |
| 3 rebalance in mid-batch | `test_members.py` |
| 4 first batch from the wrong position | `test_members.py` |
| 5 broker restart | `test_broker.py` |
| 6 group commit fails after the database commit | `test_broker.py` |
| 7 group offset ahead of and behind the database | `test_broker.py` |
| 8 offset out of range, topic re-created | `test_broker.py` |
| 9 PostgreSQL restart, backend killed | `test_database.py` |
| 10 connection reset during COMMIT | `test_database.py` |
| 11 pool exhausted | `test_database.py` |
| 13 poison JSON, bad UTF-8 | `tests/contracts/test_bad_input.py`, `tests/unit/events/test_bad_input.py` |
| 14 poison storm halts the partition | `tests/contracts/test_bad_input.py` |
| 15 NUL, emoji, RTL, lone surrogate | `tests/contracts/test_bad_input.py`, `test_webhooks.py` |
| 16 old and new schema mixed | `tests/contracts/test_bad_input.py` |
| 17 huge payload, decompression bomb | `test_streams.py`, `tests/contracts/test_bad_input.py` |
| 18 duplicates, disorder, late events | `test_streams.py`, `tests/unit/*/test_any_order.py` |
| 20 one hot key | `test_streams.py` |
| 21 provider accepts, then times out | `tests/component/dispatcher/test_providers.py` |
| 22 receipt before the submit answer | `tests/component/dispatcher/test_providers.py` |
| 23 receipt twice, late, never | `tests/component/dispatcher/test_providers.py` |
| 24 reply twice | `test_loop_kill.py` (each reply comes twice, across crashes) |
| 24 opt-out while sending | `test_loop_people.py` |
| 25 forged, replayed, stale webhook | `test_webhooks.py`, `tests/component/dispatcher/test_replies.py` |
| 26 webhook address that is private, redirects, rebinds | `test_webhooks.py`, `tests/contracts/test_channels.py` |
| 27 template code in a nickname stays text | `test_loop_people.py`, `tests/unit/composer/test_texts.py` |
| 30 two workers race for one timer | `test_members.py` |
| 30 two workers race for one claim | `tests/component/dispatcher/test_providers.py` |
| 32 no phone, nickname or token is written down | `test_loop_people.py`, `tests/contracts/test_channels.py` |
"""
