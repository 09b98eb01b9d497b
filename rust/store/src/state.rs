//! Which states, statuses, tools, surfaces, kinds and scopes are there?
//!
//! Each is an enum whose variants have one spelling, in SQL, in JSON and in Python. What is read comes as a [`Stored`] one,
//! as a row may have any text where such a word should be.

use std::fmt;

use rusqlite::types::{ToSql, ToSqlOutput};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// An enum of words.
pub trait Vocabulary: Copy + PartialEq + 'static {
    /// All there are.
    const ALL: &'static [Self];

    /// How it is spelt.
    fn as_str(self) -> &'static str;

    /// The word that is spelt so.
    fn of(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|word| word.as_str() == text)
    }
}

/// A word as it was read: one of those there are, or whatever somebody else wrote there, which no word equals.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String", bound = "T: Vocabulary")]
pub enum Stored<T: Vocabulary> {
    /// One of those there are.
    Known(T),
    /// Something else.
    Strange(String),
}

impl<T: Vocabulary> Stored<T> {
    /// The text as it was read.
    pub fn as_str(&self) -> &str {
        match self {
            Stored::Known(word) => word.as_str(),
            Stored::Strange(text) => text,
        }
    }

    /// The word, if it is one.
    pub fn known(&self) -> Option<T> {
        match self {
            Stored::Known(word) => Some(*word),
            Stored::Strange(_) => None,
        }
    }
}

impl<T: Vocabulary> PartialEq<T> for Stored<T> {
    fn eq(&self, other: &T) -> bool {
        self.known() == Some(*other)
    }
}

impl<T: Vocabulary> fmt::Debug for Stored<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl<T: Vocabulary> From<String> for Stored<T> {
    fn from(text: String) -> Self {
        T::of(&text).map_or(Stored::Strange(text), Stored::Known)
    }
}

impl<T: Vocabulary> From<Stored<T>> for String {
    fn from(word: Stored<T>) -> String {
        word.as_str().to_owned()
    }
}

impl<T: Vocabulary> ToSql for Stored<T> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

/// Declares an enum of words with their spelling.
macro_rules! vocabulary {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $word:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$of])* $word,)+
        }

        impl Vocabulary for $name {
            const ALL: &'static [Self] = &[$($name::$word,)+];

            fn as_str(self) -> &'static str {
                match self {
                    $($name::$word => $text,)+
                }
            }
        }

        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(self.as_str().into())
            }
        }
    };
}

vocabulary! {
    /// Where a proposal stands.
    State {
        /// It can be decided.
        Pending = "pending",
        /// It runs as proposed.
        Approved = "approved",
        /// Another text runs instead.
        Modified = "modified",
        /// It does not run.
        Rejected = "rejected",
        /// Nobody decided in time.
        Expired = "expired",
        /// Its requester took it back, or its bottle stopped.
        Withdrawn = "withdrawn",
    }
}

impl State {
    /// Whether an operator decided.
    pub(crate) fn is_decided(self) -> bool {
        matches!(self, State::Approved | State::Modified | State::Rejected)
    }
}

vocabulary! {
    /// How far the file of a decision is.
    ApplyState {
        /// Decided, and not in place yet.
        Intended = "intended",
        /// In effect.
        Applied = "applied",
        /// It never will be.
        Failed = "failed",
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    /// The words that a rule of the schema lists.
    fn in_schema(rule: &str) -> Vec<&'static str> {
        const SCHEMAS: [&str; 4] = [
            include_str!("../../../migrations/queue_store/0001_queue.up.sql"),
            include_str!("../../../migrations/audit_store/0001_audit.up.sql"),
            include_str!("../../../migrations/grant_store/0001_grants.up.sql"),
            include_str!("../../../migrations/bottle_store/0001_bottles.up.sql"),
        ];
        let rules = SCHEMAS.iter().find_map(|schema| schema.split_once(rule)).expect("the schema has the rule").1;
        let end = rules.find("),\n").expect("a rule ends");
        rules[..end].split('\'').skip(1).step_by(2).collect()
    }

    fn spelt<T: Vocabulary>() -> Vec<&'static str> {
        T::ALL.iter().map(|word| word.as_str()).collect()
    }

    #[test]
    fn words_are_those_of_the_schema() {
        for (rule, words) in
            [("proposal_state_is_known", spelt::<State>()), ("apply_state_is_known", spelt::<ApplyState>())]
        {
            assert_eq!(in_schema(rule), words, "{rule}");
        }
    }

    #[test]
    fn what_is_no_word_is_kept_as_it_is_and_equals_none() {
        let read = |json: &str| serde_json::from_str::<Stored<State>>(json).unwrap();
        assert_eq!(read("\"pending\""), State::Pending);
        let strange = read("\"Pending\"");
        assert!(State::ALL.iter().all(|state| strange != *state));
        assert_eq!((strange.as_str(), serde_json::to_string(&strange).unwrap()), ("Pending", "\"Pending\"".to_owned()));
    }
}
