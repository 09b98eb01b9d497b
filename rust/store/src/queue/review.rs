//! What must an operator see of one proposal before deciding, and which hash says that it was this?

use serde::{Deserialize, Serialize};

use crate::diff::{Hunk, hunks, sha256_hex};
use crate::error::{Error, Result};
use crate::queue::item::InboxItem;
use crate::queue::managed_file::{self, Current};
use crate::queue::revision::Revised;
use crate::rules::{MAX_JUSTIFICATION_BYTES, MAX_PAYLOAD_BYTES, check_hash, check_name, check_text};
use crate::state::{State, Status};
use crate::statement::Canonical;
use crate::visible::deceptions;

/// All of one proposal: what a screen shows before somebody decides.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Review {
    /// The proposal and where it stands.
    #[serde(flatten)]
    pub item: InboxItem,
    /// The managed file as it is now; `None` if there is none, it is absent, or `current_problem` says why not.
    pub current_file: Option<String>,
    /// Its hash; empty while it is absent, `None` where it could not be read.
    pub current_sha256: Option<String>,
    /// Why the file cannot be shown or compared.
    pub current_problem: Option<String>,
    /// From the file as it is to what is proposed; of a modification from what was proposed to what runs. `None` where
    /// there is nothing to compare: then the payload is what must be seen.
    pub hunks: Option<Vec<Hunk>>,
    /// What it was put in the place of, as long as that is kept.
    pub revised: Option<Revised>,
    /// What should make the operator look twice.
    pub odd: Vec<Odd>,
    /// What a decision names.
    pub review_sha256: String,
}

/// Something about a proposal that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Odd {
    /// `damaged`, `stale`, `not-compared`, `invisible`, `look-alike` or `right-to-left`.
    pub kind: String,
    /// A sentence about it.
    pub message: String,
}

impl Review {
    /// Looks at the file and compares: seconds on a slow disk, so under no lock.
    pub(crate) fn of(item: InboxItem, revised: Option<Revised>) -> Self {
        let path = item.managed_file.as_deref();
        let current = path.map_or_else(Current::default, managed_file::look);
        let proposed = &item.proposal.proposed_file;
        let pending = item.state == State::Pending;
        let compared = match (&item.response, &current) {
            (Some(answer), _) => answer.final_file.as_deref().map(|last| hunks(proposed, last)),
            (None, Current { sha256: Some(_), problem: None, text }) if pending && path.is_some() => {
                Some(hunks(text.as_deref().unwrap_or_default(), proposed))
            }
            _ => None,
        };
        let revised = revised.map(|before| before.compared(proposed));
        let mut odd = Vec::new();
        let mut note = |kind: &str, message: String| odd.push(Odd { kind: kind.to_owned(), message });
        if let Some(reason) = &item.damaged {
            note("damaged", format!("It cannot be decided: {reason}."));
        }
        if let Some(damage) = damage(&item) {
            note("damaged", format!("The row is not as it was written: {damage}."));
        }
        if let (true, Some(path)) = (pending, path) {
            if let Some(problem) = &current.problem {
                note("not-compared", format!("{path} cannot be compared: {problem}."));
            } else if item.base_sha256.is_some() && item.base_sha256 != current.sha256 {
                note("stale", format!("{path} has changed since this was proposed, so approving it will be refused."));
            }
        }
        for message in &item.thread {
            if let Some(reason) = &message.damaged {
                note("damaged", format!("A message about it is not to be believed: {reason}."));
            }
            if !message.is_question() {
                for kind in deceptions(&message.text) {
                    note(kind, format!("An answer has {}.", meaning(kind)));
                }
            }
        }
        for (what, text) in [("payload", proposed), ("justification", &item.proposal.justification)] {
            for kind in deceptions(text) {
                note(kind, format!("The {what} has {}.", meaning(kind)));
            }
        }
        let review_sha256 = hash(&item, &sha256_hex(proposed), base(&item, &current).as_deref());
        let Current { text, sha256, problem } = current;
        Review {
            current_file: text,
            current_sha256: sha256,
            current_problem: problem,
            hunks: compared,
            revised,
            odd,
            review_sha256,
            item,
        }
    }
}

fn meaning(kind: &str) -> &'static str {
    match kind {
        "look-alike" => "words whose letters are of scripts that no language mixes",
        "right-to-left" => "lines that a screen may show in another order than they have",
        _ => "characters that cannot be seen",
    }
}

/// What of an item breaks the rule that its column had when it was written.
fn damage(item: &InboxItem) -> Option<String> {
    let proposal = &item.proposal;
    if sha256_hex(&proposal.proposed_file) != proposal.payload_sha256 {
        return Some("its payload does not have the hash that is written beside it".to_owned());
    }
    let rules = [
        check_name("bottle_slug", &proposal.bottle_slug),
        check_name("tool", &proposal.tool),
        check_text("proposed_file", proposal.proposed_file.as_bytes(), MAX_PAYLOAD_BYTES).map(drop),
        check_text("justification", proposal.justification.as_bytes(), MAX_JUSTIFICATION_BYTES).map(drop),
    ];
    rules.into_iter().find_map(|rule| rule.err()).map(|broken| broken.to_string())
}

/// What the managed file hashes to when the proposal takes effect: as the proposal says, or else as it is now. `None`
/// without one, or where it cannot be read.
pub(crate) fn base(item: &InboxItem, current: &Current) -> Option<String> {
    item.managed_file.as_ref()?;
    item.base_sha256.clone().or_else(|| current.sha256.clone())
}

/// The hash of a review. `docs/states.md` has the bytes.
pub(crate) fn hash(item: &InboxItem, payload_sha256: &str, base: Option<&str>) -> String {
    let mut to = Canonical::new("bot-bottle/review/1");
    to.text(&item.proposal.id);
    to.text(&item.proposal.bottle_slug);
    to.text(&item.proposal.tool);
    to.text(payload_sha256);
    to.maybe(item.managed_file.as_deref());
    to.maybe(base);
    to.maybe(item.proposal.fingerprint.as_deref());
    to.maybe(item.proposal.revises.as_deref());
    to.text(&item.thread.len().to_string());
    for message in &item.thread {
        to.text(message.sender.as_str());
        to.text(&sha256_hex(&message.text));
    }
    to.sha256()
}

/// What somebody who decides says to have looked at.
#[derive(Debug, Clone, Copy)]
pub enum Reviewed<'a> {
    /// All of it: [`Review::review_sha256`].
    Review(&'a str),
    /// The payload alone, by its hash: for programs that decide without a screen.
    Payload(&'a str),
}

impl Reviewed<'_> {
    pub(crate) fn check(self) -> Result<()> {
        match self {
            Reviewed::Review(hash) => check_hash("review_sha256", hash),
            Reviewed::Payload(hash) => check_hash("payload_sha256", hash),
        }
    }

    /// What was reviewed is what is there; `review` is the hash of that. A damaged one can still be rejected.
    pub(crate) fn covers(self, item: &InboxItem, payload_sha256: &str, review: &str, status: Status) -> Result<()> {
        let id = || item.proposal.id.clone();
        let stale = |expected: &str| Error::StalePayload {
            id: id(),
            expected: expected.to_owned(),
            actual: payload_sha256.to_owned(),
        };
        match self {
            Reviewed::Payload(seen) if seen != payload_sha256 => Err(stale(seen)),
            Reviewed::Review(seen) if seen != review => {
                Err(Error::StaleReview { id: id(), expected: seen.to_owned(), actual: review.to_owned() })
            }
            _ if status != Status::Rejected && item.proposal.payload_sha256 != payload_sha256 => {
                Err(stale(&item.proposal.payload_sha256))
            }
            _ => Ok(()),
        }
    }
}
