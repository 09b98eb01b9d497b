"""Which words does the store use for a proposal's state, for who decided, and for how far a grant reaches?

They are plain strings at run time, the same ones in SQL, in every JSON and here; these names are for annotations, so
that a type checker finds ``decide(…, "aproved")``. The tool of a proposal is any text; only the tools of the sidecars
that come with this package have a constant (``TOOL_EGRESS_ALLOW`` and so on).
"""

from typing import Literal, TypeAlias

State: TypeAlias = Literal["pending", "approved", "modified", "rejected", "expired", "withdrawn"]
"""The state of a proposal."""

Status: TypeAlias = Literal["approved", "modified", "rejected"]
"""What an operator decided."""

ApplyState: TypeAlias = Literal["intended", "applied", "failed"]
"""The state of a decision's managed file."""

Surface: TypeAlias = Literal["cli", "tui", "web", "api", "policy"]
"""The program through which somebody decided."""

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
