"""Topic names, who writes and reads each, and how they are provisioned.

Partition counts and retention are defaults; `headsup topics apply` provisions them and may be told otherwise.
"""

from typing import Final, NamedTuple

from shared.bus.port import TopicSpec

ORDERS: Final = "headsup.orders.v1"
INVENTORY: Final = "headsup.inventory.v1"
DECLARATIONS: Final = "headsup.declarations.v1"
SETTINGS: Final = "headsup.settings.v1"
TRACKING: Final = "headsup.tracking.v1"
INCIDENTS: Final = "headsup.incidents.v1"
NOTICES: Final = "headsup.notices.v1"
DELIVERIES: Final = "headsup.deliveries.v1"
REPLIES: Final = "headsup.replies.v1"
REMEDIES: Final = "headsup.remedies.v1"
CASES: Final = "headsup.cases.v1"
DEAD_LETTERS: Final = "headsup.dead-letters.v1"

PARTITIONS: Final = 6
"""Default partitions of a busy topic: three for each core of a small installation, so that work can be
spread."""


class Role(NamedTuple):
    """What a topic is for. `written_by` and `read_by` name the four services or the systems outside."""

    about: str
    key: str
    written_by: tuple[str, ...]
    read_by: tuple[str, ...]


TOPICS: Final[tuple[TopicSpec, ...]] = (
    TopicSpec(ORDERS, PARTITIONS),
    TopicSpec(INVENTORY, PARTITIONS),
    TopicSpec(DECLARATIONS, 1),
    TopicSpec(SETTINGS, 1, compacted=True),
    TopicSpec(TRACKING, PARTITIONS),
    TopicSpec(INCIDENTS, PARTITIONS),
    TopicSpec(NOTICES, PARTITIONS),
    TopicSpec(DELIVERIES, PARTITIONS),
    TopicSpec(REPLIES, PARTITIONS),
    TopicSpec(REMEDIES, PARTITIONS),
    TopicSpec(CASES, PARTITIONS),
    TopicSpec(DEAD_LETTERS, 2),
)

SERVICES: Final = ("detector", "composer", "dispatcher", "followup")

ROLES: Final[dict[str, Role]] = {
    ORDERS: Role(
        "Orders, inspections, refunds and disputes",
        "order_id",
        ("order systems",),
        ("detector", "dispatcher", "followup"),
    ),
    INVENTORY: Role("Stock and SKU descriptions", "sku", ("stock systems",), ("detector", "composer")),
    DECLARATIONS: Role("Trouble declared by operators", "scope", ("operators",), ("detector",)),
    SETTINGS: Role("Stores, modes, policies, stops and wave releases (compacted)", "store_id", ("composer",), SERVICES),
    TRACKING: Role(
        "Parcel scans and estimates",
        "order_id, else tracking_no",
        ("carriers' feeds", "aggregators"),
        ("detector", "followup"),
    ),
    INCIDENTS: Role(
        "Incidents opened, updated and resolved",
        "order_id",
        ("detector",),
        ("composer", "dispatcher", "followup"),
    ),
    NOTICES: Role("Notices composed or held", "order_id", ("composer",), ("dispatcher", "followup")),
    DELIVERIES: Role("What became of each notice", "order_id", ("dispatcher",), ("followup", "composer")),
    REPLIES: Role(
        "What customers answered",
        "order_id",
        ("dispatcher", "REST", "choice page"),
        ("followup", "dispatcher"),
    ),
    REMEDIES: Role(
        "Remedies and fulfilment holds, requested and done",
        "order_id",
        ("followup", "order systems"),
        ("order systems", "followup", "composer"),
    ),
    CASES: Role(
        "Cases, choices, promises, scores and notice requests",
        "order_id",
        ("followup",),
        ("composer", "integrators", "analytics"),
    ),
    DEAD_LETTERS: Role("What could not be applied, and why", "as received", SERVICES, ("operators",)),
}
