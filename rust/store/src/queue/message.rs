//! What was said about a proposal, by whom, and is it to be believed?

use rusqlite::{Connection, Row, named_params};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::diff::sha256_hex;
use crate::error::{Error, Result};
use crate::file::column::get;
use crate::rules::{MAX_MESSAGE_BYTES, MAX_QUESTIONS_PER_PROPOSAL, check_text, check_time};
use crate::state::{Sender, Stored, Surface};
use crate::statement::{Keyring, Keys, QuestionStatement, Signature};

/// What the audit log says of a question and of its answer.
pub(crate) const ASKED: &str = "asked";
pub(crate) const ANSWERED: &str = "answered";

/// One message of a proposal's thread. Immutable once written.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)] // named and explained in the Python stub and the schema
pub struct Message {
    pub id: String,
    pub proposal_id: String,
    pub sender: Stored<Sender>,
    pub text: String,
    pub written_by: String,
    pub surface: Stored<Surface>,
    pub written_at: String,
    /// Of a question: what else it says, and who signed it.
    pub signed: Option<SignedQuestion>,
    /// Why it is not to be believed.
    #[serde(default)]
    pub damaged: Option<String>,
}

/// The part of a question's statement (docs/statements.md) that a message does not have anyway, and its signature.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)] // named and explained in docs/statements.md
pub struct SignedQuestion {
    pub bottle_slug: String,
    pub tool: String,
    pub payload_sha256: String,
    pub key_id: String,
    pub signature: String,
}

impl Message {
    /// Whether the operator wrote it, as far as it says.
    pub fn is_question(&self) -> bool {
        self.sender == Sender::Operator
    }

    /// Whether one of these keys signed all of it.
    pub(crate) fn verify(&self, keyring: &Keyring) -> Result<()> {
        let refused = |reason: &str| Error::Unverified { what: self.subject(), reason: reason.to_owned() };
        if let Some(reason) = &self.damaged {
            return Err(refused(reason));
        }
        let signed = self.signed.as_ref().ok_or_else(|| refused("it is not signed"))?;
        let statement = QuestionStatement {
            id: &self.id,
            proposal_id: &self.proposal_id,
            bottle_slug: &signed.bottle_slug,
            tool: &signed.tool,
            payload_sha256: &signed.payload_sha256,
            text_sha256: &sha256_hex(&self.text),
            asked_by: &self.written_by,
            surface: self.surface.as_str(),
            asked_at: &self.written_at,
        };
        let signature = Signature { key_id: signed.key_id.clone(), signature: signed.signature.clone() };
        keyring.verify(&statement, &signature)?.check_name(&statement, &self.written_by)
    }

    pub(crate) fn subject(&self) -> String {
        let what = if self.is_question() { "the question" } else { "the answer" };
        format!("{what} {} about proposal {}", self.id, self.proposal_id)
    }

    /// What of it breaks the rule that its column had when it was written.
    fn broken(&self) -> Option<String> {
        if Uuid::try_parse(&self.id).is_err() {
            return Some("its id is no UUID".to_owned());
        }
        if self.is_question() != self.signed.is_some() || !(self.is_question() || self.sender == Sender::Requester) {
            return Some("it does not say who wrote it".to_owned());
        }
        let rules = [
            check_text("text", self.text.as_bytes(), MAX_MESSAGE_BYTES).map(drop),
            check_text("written_by", self.written_by.as_bytes(), 256).map(drop),
            self.surface.as_str().parse::<Surface>().map(drop),
            check_time("written_at", &self.written_at).map(drop),
        ];
        rules.into_iter().find_map(|rule| rule.err()).map(|broken| broken.to_string())
    }
}

const COLUMNS: &str = "m.id, p.id AS proposal_id, m.sender, m.text, m.written_by, m.surface, m.written_at, p.bottle_slug, \
     p.tool, p.payload_sha256, m.key_id, m.signature";

/// Reads [`COLUMNS`]. A message that breaks a rule says so, and nothing longer than a message may be is carried along.
fn from_row(row: &Row<'_>) -> rusqlite::Result<Message> {
    let sender: Stored<Sender> = get(row, "sender")?;
    let signed = match (sender.known(), get(row, "key_id")?, get(row, "signature")?) {
        (Some(Sender::Operator), key_id, signature) => Some(SignedQuestion {
            bottle_slug: get(row, "bottle_slug")?,
            tool: get(row, "tool")?,
            payload_sha256: get(row, "payload_sha256")?,
            key_id: Option::unwrap_or_default(key_id),
            signature: Option::unwrap_or_default(signature),
        }),
        _ => None,
    };
    let mut message = Message {
        id: get(row, "id")?,
        proposal_id: get(row, "proposal_id")?,
        sender,
        text: get(row, "text")?,
        written_by: get(row, "written_by")?,
        surface: get(row, "surface")?,
        written_at: get(row, "written_at")?,
        signed,
        damaged: None,
    };
    message.damaged = message.broken();
    if message.damaged.is_some() {
        let mut texts = vec![&mut message.id, &mut message.text, &mut message.written_by];
        if let Stored::Strange(sender) = &mut message.sender {
            texts.push(sender);
        }
        for text in texts {
            let end = (0..=MAX_MESSAGE_BYTES.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
            text.truncate(end.unwrap_or_default());
        }
    }
    Ok(message)
}

/// What was said about a proposal, by its own id; in its order.
pub(crate) fn thread(conn: &Connection, proposal_id: &str) -> Result<Vec<Message>> {
    // More than there may be somebody else wrote; the newest are those that matter.
    const THREAD_SQL: &str = "SELECT * FROM (
             SELECT m.seq, {COLUMNS} FROM proposals p JOIN messages m ON m.proposal_seq = p.seq
             WHERE p.id = :id ORDER BY m.seq DESC LIMIT :limit) ORDER BY seq";
    let sql = THREAD_SQL.replace("{COLUMNS}", COLUMNS);
    let mut statement = conn.prepare_cached(&sql)?;
    let limit = 2 * MAX_QUESTIONS_PER_PROPOSAL as i64;
    let rows = statement.query_map(named_params! {":id": proposal_id, ":limit": limit}, from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The first question about a proposal that is not answered, of those that came after `after`.
pub(crate) fn open_question(conn: &Connection, proposal_id: &str, after: &str) -> Result<Option<Message>> {
    let mut thread = thread(conn, proposal_id)?;
    let answered = thread.iter().rposition(|message| message.sender == Sender::Requester);
    let seen = thread.iter().rposition(|message| message.id == after);
    let from = answered.max(seen).map_or(0, |last| last + 1);
    Ok(thread.drain(from..).find(Message::is_question))
}

/// Says of each question whether one of the host's keys signed it.
pub(crate) fn settle(keys: &Keys, thread: &mut [Message]) -> Result<()> {
    for message in thread.iter_mut().filter(|message| message.is_question() && message.damaged.is_none()) {
        if let Err(error) = keys.keyring().and_then(|keyring| message.verify(&keyring)) {
            message.damaged = Some(error.damage().ok_or(error)?);
        }
    }
    Ok(())
}

/// The bottles and reasons of the questions that this host did not sign.
pub(crate) fn damaged(conn: &Connection, keys: &Keys) -> Result<Vec<(String, String)>> {
    let sql = format!("SELECT {COLUMNS} FROM messages m JOIN proposals p ON p.seq = m.proposal_seq");
    let mut damaged = Vec::new();
    let mut statement = conn.prepare(&sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let slug = get(row, "bottle_slug")?;
        let mut message = [from_row(row)?];
        settle(keys, &mut message)?;
        let [message] = message;
        let subject = message.subject();
        if let Some(reason) = message.damaged {
            damaged.push((slug, if reason.starts_with(&subject) { reason } else { format!("{subject}: {reason}") }));
        }
    }
    Ok(damaged)
}
