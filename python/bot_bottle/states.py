"""Which words does the store know for where a proposal stands, who decided, and how far a grant reaches?

They are plain strings at run time, the same ones in SQL, in every JSON and here; these names are for annotations, so
that a type checker finds ``decide(…, "aproved")``. The tool of a proposal is any text: only those of the sidecars that
come with this package have a constant (``TOOL_EGRESS_ALLOW`` and so on).
"""

from typing import Literal, TypeAlias

State: TypeAlias = Literal["pending", "approved", "modified", "rejected", "expired", "withdrawn"]
"""Where a proposal stands."""

Status: TypeAlias = Literal["approved", "modified", "rejected"]
"""What was decided."""

ApplyState: TypeAlias = Literal["intended", "applied", "failed"]
"""Where the managed file of a decision stands."""

Surface: TypeAlias = Literal["cli", "tui", "web", "api", "policy"]
"""Through what was decided."""

Sender: TypeAlias = Literal["operator", "requester"]
"""Who wrote a message about a proposal."""

ChangeKind: TypeAlias = Literal[
    "proposed",
    "approved",
    "modified",
    "rejected",
    "expired",
    "withdrawn",
    "applied",
    "apply_failed",
    "asked",
    "answered",
    "archived",
]
"""One step in a proposal's life."""

Scope: TypeAlias = Literal["once", "uses", "until", "bottle"]
"""How far a grant reaches."""

Transport: TypeAlias = Literal["mount", "broker"]
"""How a bottle's sidecars reach the queue."""
