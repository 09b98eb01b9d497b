//! Which states, statuses, tools, surfaces, kinds and scopes are there?
//!
//! Each is an enum whose variants have one spelling, in SQL, in JSON and in Python. What is read comes as a [`Stored`] one,
//! as a row may have any text where such a word should be.

use std::fmt;
use std::str::FromStr;

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

vocabulary! {
    /// What an operator decides.
    Status {
        /// It runs as proposed.
        Approved = "approved",
        /// Another text runs instead.
        Modified = "modified",
        /// It does not run.
        Rejected = "rejected",
    }
}

impl FromStr for Status {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused = || Error::proposal("status", format!("must be approved, modified or rejected, not {text:?}"));
        Status::of(text).ok_or_else(refused)
    }
}

vocabulary! {
    /// Through what something was decided or said.
    Surface {
        /// The command line.
        Cli = "cli",
        /// The terminal app.
        Tui = "tui",
        /// The dashboard.
        Web = "web",
        /// A program.
        Api = "api",
        /// A rule, not a person.
        Policy = "policy",
    }
}

impl FromStr for Surface {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Surface::of(text).ok_or_else(|| {
            let all = Surface::ALL.iter().map(|surface| surface.as_str()).collect::<Vec<_>>().join(", ");
            Error::input("surface", format!("must be one of {all}, not {text:?}"))
        })
    }
}

vocabulary! {
    /// Who wrote a message.
    Sender {
        /// Who asks back.
        Operator = "operator",
        /// Who answers.
        Requester = "requester",
    }
}

vocabulary! {
    /// How far a grant reaches.
    GrantScope {
        /// One use.
        Once = "once",
        /// So many.
        Uses = "uses",
        /// Any, until a time.
        Until = "until",
        /// Any, as long as the bottle runs.
        Bottle = "bottle",
    }
}

vocabulary! {
    /// How a bottle's sidecars reach the queue.
    Transport {
        /// By the database as a mounted file.
        Mount = "mount",
        /// By the host's broker.
        Broker = "broker",
    }
}

impl FromStr for Transport {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused = || Error::input("transport", format!("must be mount or broker, not {text:?}"));
        Transport::of(text).ok_or_else(refused)
    }
}

vocabulary! {
    /// The tools that have rules of their own. Any other name may be a tool's as well: a bottle registers its own.
    Tool {
        /// A new `routes.yaml` for the egress proxy, letting more through.
        EgressAllow = "egress-allow",
        /// A new `routes.yaml` for the egress proxy, letting less through.
        EgressBlock = "egress-block",
        /// A new Dockerfile for the agent.
        CapabilityBlock = "capability-block",
        /// A push in which gitleaks found something.
        GitleaksAllow = "gitleaks-allow",
        /// A request that carries a secret out.
        EgressTokenAllow = "egress-token-allow",
        /// A hook asks whether an agent may run a command or change a file.
        RunCommand = "run-command",
    }
}

impl Tool {
    /// Its payload is a finding, not a file: nothing to modify, and leave to pass needs a recorded reason.
    pub(crate) fn shows_a_finding(self) -> bool {
        matches!(self, Tool::GitleaksAllow | Tool::EgressTokenAllow)
    }

    /// Nobody reads words behind it: a held request, and an agent that stands still until it is let go on.
    pub(crate) fn reads_no_words(self) -> bool {
        matches!(self, Tool::EgressTokenAllow | Tool::RunCommand)
    }
}

vocabulary! {
    /// A step in a proposal's life.
    ChangeKind {
        /// It was written.
        Proposed = "proposed",
        /// It was decided: it runs as proposed.
        Approved = "approved",
        /// It was decided: another text runs.
        Modified = "modified",
        /// It was decided: it does not run.
        Rejected = "rejected",
        /// Nobody decided in time.
        Expired = "expired",
        /// It was taken back.
        Withdrawn = "withdrawn",
        /// Its file is in effect.
        Applied = "applied",
        /// Its file could not be put in place.
        ApplyFailed = "apply_failed",
        /// The operator asked back.
        Asked = "asked",
        /// The requester answered.
        Answered = "answered",
        /// It was put away.
        Archived = "archived",
    }
}

impl From<Status> for ChangeKind {
    fn from(status: Status) -> Self {
        match status {
            Status::Approved => ChangeKind::Approved,
            Status::Modified => ChangeKind::Modified,
            Status::Rejected => ChangeKind::Rejected,
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
        for (rule, words) in [
            ("proposal_state_is_known", spelt::<State>()),
            ("apply_state_is_known", spelt::<ApplyState>()),
            ("response_status_is_known", spelt::<Status>()),
            ("response_surface_is_known", spelt::<Surface>()),
            ("message_surface_is_known", spelt::<Surface>()),
            ("audit_surface_is_known", spelt::<Surface>()),
            ("message_sender_is_known", spelt::<Sender>()),
            ("grant_scope_is_known", spelt::<GrantScope>()),
            ("change_kind_is_known", spelt::<ChangeKind>()),
        ] {
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
