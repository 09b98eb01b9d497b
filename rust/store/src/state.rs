//! Which states, statuses, tools, surfaces and kinds of change are there?

use crate::error::{Error, Result};

/// A new `routes.yaml` for the egress proxy, letting more through.
pub const TOOL_EGRESS_ALLOW: &str = "egress-allow";
/// A new `routes.yaml` for the egress proxy, letting less through.
pub const TOOL_EGRESS_BLOCK: &str = "egress-block";
/// A new Dockerfile for the agent.
pub const TOOL_CAPABILITY_BLOCK: &str = "capability-block";
/// A push in which gitleaks found something.
pub const TOOL_GITLEAKS_ALLOW: &str = "gitleaks-allow";
/// A request that carries a secret out.
pub const TOOL_EGRESS_TOKEN_ALLOW: &str = "egress-token-allow";

/// Tools whose payload is a finding, not a file: nothing to modify, and leave to pass needs a recorded reason.
pub(crate) const FINDING_TOOLS: [&str; 2] = [TOOL_GITLEAKS_ALLOW, TOOL_EGRESS_TOKEN_ALLOW];

/// Tools behind which nobody reads words: a held request, and an agent that stands still until it is let go on.
pub(crate) const UNANSWERABLE_TOOLS: [&str; 2] = [TOOL_EGRESS_TOKEN_ALLOW, "run-command"];

/// It runs as proposed.
pub const STATUS_APPROVED: &str = "approved";
/// Another text runs instead.
pub const STATUS_MODIFIED: &str = "modified";
/// It does not run.
pub const STATUS_REJECTED: &str = "rejected";

const SURFACES: [&str; 5] = ["cli", "tui", "web", "api", "policy"];

pub(crate) fn check_surface(surface: &str) -> Result<()> {
    if SURFACES.contains(&surface) {
        return Ok(());
    }
    Err(Error::input("surface", format!("must be one of {}, not {surface:?}", SURFACES.join(", "))))
}

/// How a bottle's sidecars reach the queue.
const TRANSPORTS: [&str; 2] = ["mount", "broker"];

pub(crate) fn check_transport(transport: &str) -> Result<()> {
    if TRANSPORTS.contains(&transport) {
        return Ok(());
    }
    Err(Error::input("transport", format!("must be mount or broker, not {transport:?}")))
}

/// The steps there are; the schema checks the same names.
#[derive(Clone, Copy)]
pub(crate) enum ChangeKind {
    Proposed,
    Approved,
    Modified,
    Rejected,
    Expired,
    Withdrawn,
    Applied,
    ApplyFailed,
    Asked,
    Answered,
    Archived,
}

impl ChangeKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            ChangeKind::Proposed => "proposed",
            ChangeKind::Approved => "approved",
            ChangeKind::Modified => "modified",
            ChangeKind::Rejected => "rejected",
            ChangeKind::Expired => "expired",
            ChangeKind::Withdrawn => "withdrawn",
            ChangeKind::Applied => "applied",
            ChangeKind::ApplyFailed => "apply_failed",
            ChangeKind::Asked => "asked",
            ChangeKind::Answered => "answered",
            ChangeKind::Archived => "archived",
        }
    }
}
