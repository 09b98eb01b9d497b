//! How is asked back about a proposal, and how is that answered, once, with its evidence?
//!
//! The proposal stays pending meanwhile. The operator may ask again; the requester has one answer to what was asked, so that
//! whoever can write as a requester can neither flood the thread nor make every review stale by adding to it.

use rusqlite::{Connection, OptionalExtension, named_params};
use uuid::Uuid;

use crate::audit::entry::{self as audit, AuditFields};
use crate::clock;
use crate::diff::sha256_hex;
use crate::error::{Error, Result};
use crate::file::bell::Rings;
use crate::file::column::get;
use crate::file::database::Database;
use crate::file::numbers;
use crate::file::transaction::Transaction;
use crate::queue::item::InboxSummary;
use crate::queue::life::{self, Found};
use crate::queue::message::{ANSWERED, ASKED, Message, thread};
use crate::queue::{changes, item};
use crate::registration;
use crate::rules::{MAX_MESSAGE_BYTES, MAX_QUESTIONS_PER_PROPOSAL, check_text, new_id};
use crate::state::{ChangeKind, Sender, State, Surface, Tool, Vocabulary};
use crate::statement::{Keys, QuestionStatement, Signature};

/// What an operator asks back, about what, and how.
pub struct Question<'a> {
    /// Which proposal, by its full id.
    pub proposal_id: &'a str,
    /// The operator's words.
    pub text: &'a str,
    /// Who; `None` is the operating system's user.
    pub asked_by: Option<&'a str>,
    /// Through what.
    pub surface: Surface,
    /// A UUID for it: the same question under the same id again changes nothing. `None` makes one.
    pub id: Option<&'a str>,
}

/// Puts the question to whoever waits, with its audit entry; the proposal stays pending.
pub(crate) fn ask(db: &Database, question: &Question<'_>) -> Result<Message> {
    check_words("question", question.text)?;
    let id = question.id.map_or_else(|| Ok(new_id()), check_id)?;
    let keys = Keys::of(db);
    let read = |conn: &Connection| item::settle(conn, &keys, item::read(conn, question.proposal_id)?);
    let item: Option<Option<InboxSummary>> = db.read(read)?;
    let item = item.flatten().ok_or_else(|| Error::not_found("proposal", question.proposal_id))?;
    if let Some(known) = item.thread.iter().find(|message| message.id == id && message.text == question.text) {
        return Ok(known.clone());
    }
    item.ended().map_or(Ok(()), Err)?;
    if let Some(reason) = &item.damaged {
        registration::record_damage(db, &item.proposal.bottle_slug, reason)?;
    }
    item.refuse_damaged()?;
    let proposal = &item.proposal;
    if Tool::of(&proposal.tool).is_some_and(Tool::reads_no_words) {
        let reason = format!(
            "finds nobody who could answer: what waits for {} is held and reads no words; approve it, or reject it with notes",
            proposal.tool
        );
        return Err(Error::input("question", reason));
    }
    // Before the turn, as the first time a key is made.
    let signer = keys.decider()?;
    let asked_by = signer.author("asked_by", question.asked_by)?;
    db.write(|tx| {
        const OPEN_SQL: &str = "SELECT p.seq,
                 (SELECT count(*) FROM messages m WHERE m.proposal_seq = p.seq AND m.sender = 'operator') AS questions
             FROM proposals p WHERE p.id = :id AND p.state = 'pending' AND p.archived_at IS NULL
               AND (p.expires_at IS NULL OR p.expires_at > :now)";
        let now = clock::now();
        let open = tx
            .prepare_cached(OPEN_SQL)?
            .query_row(named_params! {":id": proposal.id, ":now": now}, |row| {
                Ok((get::<i64>(row, "seq")?, get::<i64>(row, "questions")?))
            })
            .optional()?;
        let Some((seq, questions)) = open else {
            let found = life::find(tx, &proposal.id)?.ok_or_else(|| Error::not_found("proposal", &proposal.id))?;
            return Err(item::why_not(tx, &found)?);
        };
        if questions >= MAX_QUESTIONS_PER_PROPOSAL as i64 {
            let reason = format!("would be the {}th about proposal {}; decide it now", questions + 1, proposal.id);
            return Err(Error::input("question", reason));
        }
        let signature = signer.sign(&QuestionStatement {
            id: &id,
            proposal_id: &proposal.id,
            bottle_slug: &proposal.bottle_slug,
            tool: &proposal.tool,
            payload_sha256: &proposal.payload_sha256,
            text_sha256: &sha256_hex(question.text),
            asked_by: &asked_by,
            surface: question.surface.as_str(),
            asked_at: &now,
        });
        let fields = AuditFields {
            timestamp: now.as_str(),
            bottle_slug: proposal.bottle_slug.as_str(),
            component: &proposal.tool,
            operator_action: ASKED,
            operator_notes: question.text,
            decided_by: &asked_by,
            surface: question.surface.as_str(),
            proposal_id: Some(&proposal.id),
            payload_sha256: Some(&proposal.payload_sha256),
            ..AuditFields::default()
        };
        let written = write(tx, seq, &id, &fields, Some(&signature))?;
        changes::record(tx, ChangeKind::Asked, &proposal.id, &proposal.bottle_slug, &proposal.tool)?;
        Ok((written, Rings::queue(&item.queue_key)))
    })
}

/// Answers what was asked about the proposal `found`, once; the same message again changes nothing.
pub(crate) fn answer(tx: &Transaction<'_>, found: &Found, id: &str, text: &str) -> Result<Message> {
    const PAYLOAD_SQL: &str = "SELECT payload_sha256 FROM proposals WHERE seq = :seq";
    let said = thread(tx, &found.id)?;
    if let Some(known) = said.iter().find(|message| message.id == id && message.text == text) {
        return Ok(known.clone());
    }
    if found.state != State::Pending || found.archived_at.is_some() {
        return Err(item::why_not(tx, found)?);
    }
    if !said.last().is_some_and(Message::is_question) {
        let reason = format!("has no question: nobody asked about proposal {}, or it is answered already", found.id);
        return Err(Error::input("answer", reason));
    }
    let seq = named_params! {":seq": found.seq};
    let payload_sha256: String = tx.prepare_cached(PAYLOAD_SQL)?.query_row(seq, |row| get(row, "payload_sha256"))?;
    let now = clock::now();
    let fields = AuditFields {
        timestamp: now.as_str(),
        bottle_slug: found.bottle_slug.as_str(),
        component: &found.tool,
        operator_action: ANSWERED,
        justification: text,
        decided_by: &found.bottle_slug,
        surface: Surface::Api.as_str(),
        proposal_id: Some(&found.id),
        payload_sha256: Some(&payload_sha256),
        ..AuditFields::default()
    };
    let written = write(tx, found.seq, id, &fields, None)?;
    changes::record(tx, ChangeKind::Answered, &found.id, &found.bottle_slug, &found.tool)?;
    Ok(written)
}

pub(crate) fn check_id(id: &str) -> Result<String> {
    let parsed = Uuid::try_parse(id).map_err(|_| Error::input("id", format!("must be a UUID, not {id:?}")))?;
    Ok(parsed.hyphenated().to_string())
}

pub(crate) fn check_words(what: &'static str, text: &str) -> Result<()> {
    check_text(what, text.as_bytes(), MAX_MESSAGE_BYTES).map_err(|error| match error {
        Error::InvalidProposal { what, reason } => Error::InvalidInput { what, reason },
        other => other,
    })?;
    if text.trim().is_empty() {
        return Err(Error::input(what, "is blank; say something"));
    }
    Ok(())
}

/// The row and its entry in the log, which say the same.
fn write(
    tx: &Transaction<'_>,
    proposal_seq: i64,
    id: &str,
    entry: &AuditFields<&str>,
    signature: Option<&Signature>,
) -> Result<Message> {
    let sql = format!(
        "INSERT INTO messages (seq, id, proposal_seq, sender, text, written_by, surface, written_at, key_id, signature)
         VALUES ({}, :id, :proposal_seq, :sender, :text, :by, :surface, :at, :key_id, :signature)",
        numbers::next("messages")
    );
    const TAKEN_SQL: &str = "SELECT EXISTS (SELECT 1 FROM messages WHERE id = :id)";
    if tx.prepare_cached(TAKEN_SQL)?.query_row(named_params! {":id": id}, |row| get(row, 0))? {
        return Err(Error::input("id", format!("{id} was used for another message; take a fresh one")));
    }
    let (sender, text) = match signature {
        Some(_) => (Sender::Operator, entry.operator_notes),
        None => (Sender::Requester, entry.justification),
    };
    tx.prepare_cached(&sql)?.execute(named_params! {
        ":id": id,
        ":proposal_seq": proposal_seq,
        ":sender": sender,
        ":text": text,
        ":by": entry.decided_by,
        ":surface": entry.surface,
        ":at": entry.timestamp,
        ":key_id": signature.map(|signature| &signature.key_id),
        ":signature": signature.map(|signature| &signature.signature),
    })?;
    audit::append(tx, &(*entry).into())?;
    let written = thread(tx, entry.proposal_id.unwrap_or_default())?.into_iter().find(|message| message.id == id);
    written.ok_or_else(|| Error::not_found("message", id))
}
