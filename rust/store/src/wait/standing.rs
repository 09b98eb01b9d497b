//! Where does what is waited for stand?

use std::sync::LazyLock;

use rusqlite::{Connection, OptionalExtension, Row};

use crate::clock;
use crate::error::{Error, Result};
use crate::file::bell::INBOX;
use crate::file::column::{Fields, get};
use crate::queue::managed_file::PUT_AWAY;
use crate::queue::message;
use crate::queue::response::{Answered, Response};
use crate::state::{ApplyState, State, Stored};
use crate::wait::{Event, Questions};

#[derive(Clone)]
pub(crate) enum Target {
    Answer { queue_key: String, id: String, questions: Questions },
    Change { after: i64 },
}

impl Target {
    pub(crate) fn answer(queue_key: &str, id: &str, questions: Questions) -> Self {
        Target::Answer { queue_key: queue_key.to_owned(), id: id.to_owned(), questions }
    }

    pub(super) fn bell(&self) -> &str {
        match self {
            Target::Answer { queue_key, .. } => queue_key,
            Target::Change { .. } => INBOX,
        }
    }

    /// Whether a change with this number is one that is waited for.
    pub(super) fn is_passed_by(&self, last: i64) -> bool {
        matches!(self, Target::Change { after } if last > *after)
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Target::Answer { id, .. } => id,
            Target::Change { .. } => "inbox",
        }
    }
}

pub(crate) enum Seen {
    Ended(Result<Event>),
    Open(Option<Pending>),
}

#[derive(Clone)]
pub(crate) struct Pending {
    pub(super) row: String,
    /// It only has to take effect.
    pub(super) decided: bool,
    pub(super) expires_at: Option<String>,
}

/// Ends with a question, where that is waited for and the proposal could still be decided.
pub(super) fn heed(conn: &Connection, questions: &Questions, seen: Seen) -> Result<Seen> {
    let (Questions::After(after), Seen::Open(Some(pending))) = (questions, &seen) else { return Ok(seen) };
    let question = if pending.decided { None } else { message::open_question(conn, &pending.row, after)? };
    Ok(question.map_or(seen, |question| Seen::Ended(Ok(Event::Question(Box::new(question))))))
}

/// Reads [`answer`]'s columns of the proposals that `from` finds, each asked for as `asked`, and left by its requester
/// at `left_at`.
fn answers_sql(asked: &str, left_at: &str, from: &str) -> String {
    format!(
        "SELECT {asked} AS asked, p.id, p.state, p.expires_at, {left_at} AS left_at, p.withdrawn_at, p.withdrawn_reason,
             m.state AS apply_state, m.path, m.expected_sha256, m.error, m.updated_at, {}
         FROM {from}
         LEFT JOIN responses r ON r.proposal_seq = p.seq
         LEFT JOIN applies m ON m.proposal_seq = p.seq",
        Response::COLUMNS
    )
}

/// Where each of these ids of one queue stands: one query, however many wait.
pub(crate) fn answers(conn: &Connection, queue_key: &str, ids: &[&str]) -> Result<Vec<(String, Seen)>> {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        let from = "json_each(?1) asked
             LEFT JOIN aliases a ON a.id = asked.value
             LEFT JOIN proposals p ON p.seq = coalesce((SELECT seq FROM proposals WHERE id = asked.value), a.proposal_seq)
                 AND p.queue_key = ?2";
        let left_at = "coalesce(a.withdrawn_at, CASE WHEN a.id IS NULL THEN p.requester_left_at END)";
        answers_sql("asked.value", left_at, from)
    });
    let ids = serde_json::Value::from(ids).to_string();
    let mut statement = conn.prepare_cached(&SQL)?;
    let rows = statement.query_map((ids, queue_key), |row| Ok((get(row, "asked")?, answer(row)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Where one stands, by the shortest way: after a sleep the caches are cold, and each step costs ten times as much.
pub(crate) fn answer_to(conn: &Connection, queue_key: &str, id: &str) -> Result<Seen> {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        answers_sql("?1", "p.requester_left_at", "proposals p") + " WHERE p.id = ?1 AND p.queue_key = ?2"
    });
    if let Some(seen) = conn.prepare_cached(&SQL)?.query_row((id, queue_key), answer).optional()? {
        return Ok(seen);
    }
    // An alias, or none.
    let found = answers(conn, queue_key, &[id])?.pop();
    Ok(found.map_or_else(|| Seen::Ended(Err(Error::not_found("proposal", id))), |(_, seen)| seen))
}

fn answer(row: &Row<'_>) -> rusqlite::Result<Seen> {
    let row = &Fields::of(row);
    let Some(id): Option<String> = row.get("id")? else {
        return Ok(Seen::Ended(Err(Error::not_found("proposal", &row.get::<String>("asked")?))));
    };
    let state: Stored<State> = row.get("state")?;
    let expires_at: Option<String> = row.get("expires_at")?;
    let has_expired = state == State::Pending && expires_at.as_ref().is_some_and(|at| *at <= clock::now());
    if state == State::Expired || has_expired {
        return Ok(Seen::Ended(Err(Error::Expired { id, expires_at: expires_at.unwrap_or_default() })));
    }
    let left_at: Option<String> = row.get("left_at")?;
    if let (Some(at), Stored::Known(State::Pending)) = (left_at, &state) {
        let reason = "withdrawn by the requester".to_owned();
        return Ok(Seen::Ended(Err(Error::Withdrawn { id, at, reason })));
    }
    if state == State::Withdrawn {
        let (at, reason) = (row.get::<Option<String>>("withdrawn_at")?, row.get::<Option<String>>("withdrawn_reason")?);
        let error = Error::Withdrawn { id, at: at.unwrap_or_default(), reason: reason.unwrap_or_default() };
        return Ok(Seen::Ended(Err(error)));
    }
    match row.get::<Option<Stored<_>>>("apply_state")?.and_then(|state| state.known()) {
        // Decided, but an approval the agent hears of is already in effect.
        Some(ApplyState::Intended) => {
            return Ok(Seen::Open(Some(Pending { row: id, decided: true, expires_at: None })));
        }
        Some(ApplyState::Failed) if row.get::<Option<String>>("error")?.as_deref() == Some(PUT_AWAY) => {
            return Ok(Seen::Ended(Err(Error::Withdrawn {
                id,
                at: row.get("updated_at")?,
                reason: PUT_AWAY.to_owned(),
            })));
        }
        Some(ApplyState::Failed) => {
            let (path, expected) = (row.get("path")?, row.get("expected_sha256")?);
            return Ok(Seen::Ended(Err(Error::StaleFile { id, path, expected: Some(expected), actual: None })));
        }
        _ => {}
    }
    Ok(match Response::from_row(row, &id)? {
        Some(response) => Seen::Ended(Ok(Event::Answer(Box::new(response)))),
        None => Seen::Open(Some(Pending { row: id, decided: state != State::Pending, expires_at })),
    })
}
