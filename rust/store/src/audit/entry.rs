//! What was decided, in a log that is only ever added to, each entry chained to the one before it (docs/audit.md).

use std::sync::LazyLock;

use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};
use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::clock;
use crate::diff::{hex, sha256_hex};
use crate::error::{Error, Result};
use crate::file::transaction::Transaction;
use crate::file::{column, numbers};
use crate::rules::{
    MAX_JUSTIFICATION_BYTES, MAX_NOTES_BYTES, MAX_PAYLOAD_BYTES, check_hash, check_name, check_text, check_time,
};
use crate::state::{Surface, Vocabulary};

/// `prev_hash` of the first entry, and the head of an empty log.
pub const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Goes first into every hash, so that entries of another encoding never have the same.
const ENCODING: &str = "bot-bottle.audit.v1";

/// A diff shows both of two payloads at the most, and some context.
const MAX_DIFF_BYTES: usize = 4 * MAX_PAYLOAD_BYTES;

/// The fields of an entry by their names, to make one of or to read one by. The log fills in `seq`, `prev_hash` and
/// `entry_hash`.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[allow(missing_docs)] // named and explained in the Python stub and the schema
pub struct AuditFields<T> {
    pub timestamp: T,
    pub bottle_slug: T,
    pub component: T,
    pub operator_action: T,
    pub operator_notes: T,
    pub justification: T,
    pub diff: T,
    pub decided_by: T,
    pub surface: T,
    pub proposal_id: Option<T>,
    pub payload_sha256: Option<T>,
    pub final_sha256: Option<T>,
    pub seq: Option<i64>,
    pub prev_hash: Option<T>,
    pub entry_hash: Option<T>,
}

pub(crate) const COLUMNS: &str = "timestamp, bottle_slug, component, operator_action, operator_notes, justification, diff, \
     decided_by, surface, proposal_id, payload_sha256, final_sha256, prev_hash, entry_hash, seq";

/// How many fields are texts; the first so many of [`COLUMNS`].
const TEXTS: usize = 14;

/// How many of these are what was said, which is what the hash and equality are about.
const CONTENT: usize = 12;

/// One line of the log, with all its texts in one piece of memory: in a piece each they were a fifth of reading a hundred.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "AuditFields<String>")]
pub struct AuditEntry {
    texts: String,
    ends: [usize; TEXTS],
    given: [bool; TEXTS],
    seq: Option<i64>,
}

impl AuditEntry {
    fn new(texts: [Option<&str>; TEXTS], seq: Option<i64>) -> Self {
        let mut all = String::with_capacity(texts.iter().flatten().map(|text| text.len()).sum());
        let ends = texts.map(|text| {
            all.push_str(text.unwrap_or_default());
            all.len()
        });
        AuditEntry { texts: all, ends, given: texts.map(|text| text.is_some()), seq }
    }

    /// An entry of this moment.
    pub fn of_now(fields: AuditFields<&str>) -> Result<Self> {
        let now = clock::now();
        AuditEntry::from(AuditFields { timestamp: now.as_str(), ..fields }).checked()
    }

    /// The entry with its timestamp normalised, if each field keeps its rule.
    pub fn checked(&self) -> Result<Self> {
        let fields = self.fields();
        let timestamp = check_time("timestamp", fields.timestamp)?;
        check_name("bottle_slug", fields.bottle_slug)?;
        check_name("component", fields.component)?;
        check_text("operator_action", fields.operator_action.as_bytes(), 256)?;
        check_text("operator_notes", fields.operator_notes.as_bytes(), MAX_NOTES_BYTES)?;
        check_text("justification", fields.justification.as_bytes(), MAX_JUSTIFICATION_BYTES)?;
        check_text("diff", fields.diff.as_bytes(), MAX_DIFF_BYTES)?;
        check_text("decided_by", fields.decided_by.as_bytes(), 256)?;
        fields.surface.parse::<Surface>()?;
        if let Some(id) = fields.proposal_id {
            check_text("proposal_id", id.as_bytes(), 64)?;
        }
        for (what, hash) in [("payload_sha256", fields.payload_sha256), ("final_sha256", fields.final_sha256)] {
            hash.map_or(Ok(()), |hash| check_hash(what, hash))?;
        }
        Ok(AuditFields { timestamp: timestamp.as_str(), ..fields }.into())
    }

    fn text(&self, at: usize) -> Option<&str> {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.given[at].then(|| &self.texts[start..self.ends[at]])
    }

    /// What was said, which is what equality is about.
    pub fn content(&self) -> [Option<&str>; CONTENT] {
        self.first()
    }

    fn first<const N: usize>(&self) -> [Option<&str>; N] {
        std::array::from_fn(|at| self.text(at))
    }

    /// Its fields by their names.
    pub fn fields(&self) -> AuditFields<&str> {
        AuditFields { seq: self.seq, prev_hash: self.text(12), entry_hash: self.text(13), ..fields(&self.first()) }
    }

    pub(crate) fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let mut texts = [const { None }; TEXTS];
        for (at, text) in texts.iter_mut().enumerate() {
            *text = column::text(row, at)?;
        }
        Ok(AuditEntry::new(texts.each_ref().map(Option::as_deref), row.get(TEXTS)?))
    }
}

/// What was said, by its names.
fn fields<'a>(content: &[Option<&'a str>; CONTENT]) -> AuditFields<&'a str> {
    let given = |at: usize| content[at].unwrap_or_default();
    AuditFields {
        timestamp: given(0),
        bottle_slug: given(1),
        component: given(2),
        operator_action: given(3),
        operator_notes: given(4),
        justification: given(5),
        diff: given(6),
        decided_by: given(7),
        surface: given(8),
        proposal_id: content[9],
        payload_sha256: content[10],
        final_sha256: content[11],
        ..AuditFields::default()
    }
}

impl<T: AsRef<str>> From<AuditFields<T>> for AuditEntry {
    fn from(fields: AuditFields<T>) -> Self {
        let texts = [
            Some(&fields.timestamp),
            Some(&fields.bottle_slug),
            Some(&fields.component),
            Some(&fields.operator_action),
            Some(&fields.operator_notes),
            Some(&fields.justification),
            Some(&fields.diff),
            Some(&fields.decided_by),
            Some(&fields.surface),
            fields.proposal_id.as_ref(),
            fields.payload_sha256.as_ref(),
            fields.final_sha256.as_ref(),
            fields.prev_hash.as_ref(),
            fields.entry_hash.as_ref(),
        ];
        AuditEntry::new(texts.map(|text| text.map(T::as_ref)), fields.seq)
    }
}

impl Serialize for AuditEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.fields().serialize(serializer)
    }
}

/// SHA-256 over netstrings (`<bytes>:<text>,`; `~` for an absent value) of the encoding's name, `seq`, `prev_hash` and
/// the content in order. Source: <https://cr.yp.to/proto/netstrings.txt>. No two different entries encode alike.
fn hash<'a>(seq: i64, prev_hash: &'a str, content: impl IntoIterator<Item = Option<&'a str>>) -> String {
    let mut sha = Sha256::new();
    let mut add = |field: Option<&str>| match field {
        Some(text) => {
            sha.update(text.len().to_string());
            sha.update(b":");
            sha.update(text);
            sha.update(b",");
        }
        None => sha.update(b"~"),
    };
    add(Some(ENCODING));
    add(Some(&seq.to_string()));
    add(Some(prev_hash));
    content.into_iter().for_each(add);
    hex(&sha.finalize())
}

/// Appends in the caller's transaction: the head is read where the entry is written, so that a chain never forks.
pub(crate) fn append(tx: &Transaction<'_>, entry: &AuditEntry) -> Result<AuditEntry> {
    const APPEND_SQL: &str = "INSERT INTO audit_entries (timestamp, bottle_slug, component, operator_action, operator_notes,
             justification, diff, decided_by, surface, proposal_id, payload_sha256, final_sha256, prev_hash, entry_hash, seq)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
    let (last, prev_hash) = last(tx)?;
    let seq = last + 1;
    let entry_hash = hash(seq, &prev_hash, entry.content());
    let (prev_hash, entry_hash) = (Some(prev_hash.as_str()), Some(entry_hash.as_str()));
    let written = AuditEntry::from(AuditFields { seq: Some(seq), prev_hash, entry_hash, ..entry.fields() });
    let texts: [_; TEXTS] = written.first();
    let values = texts.iter().map(|text| text as &dyn ToSql).chain([&seq as &dyn ToSql]);
    tx.prepare_cached(APPEND_SQL)?.execute(params_from_iter(values))?;
    Ok(written)
}

pub(crate) fn last(conn: &Connection) -> Result<(i64, String)> {
    static LAST_SQL: LazyLock<String> = LazyLock::new(|| {
        format!("SELECT seq, entry_hash FROM audit_entries WHERE seq = {}", numbers::last("audit_entries"))
    });
    let last = conn
        .prepare_cached(&LAST_SQL)?
        .query_row([], |row| {
            let hash = row.get_ref("entry_hash")?.as_bytes_or_null()?.unwrap_or_default();
            // One that somebody else wrote can be anything. `verify` stops at it; the log goes on.
            let hash = match str::from_utf8(hash).ok().filter(|hash| check_hash("entry_hash", hash).is_ok()) {
                Some(hash) => hash.to_owned(),
                None => sha256_hex(hash),
            };
            Ok((row.get("seq")?, hash))
        })
        .optional()?;
    Ok(last.unwrap_or_else(|| (0, NO_HASH.to_owned())))
}

/// What `verify` found sound.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)]
pub struct AuditReport {
    pub entries: i64,
    pub first_seq: Option<i64>,
    pub last_seq: Option<i64>,
    pub head: String,
}

/// Recomputes the chain; `each` is called with every entry that fits.
pub(crate) fn verify(
    conn: &Connection,
    head: Option<&str>,
    mut each: impl FnMut(&AuditFields<&str>) -> Result<()>,
) -> Result<AuditReport> {
    let broken = |seq: i64, reason: String| Error::AuditIntegrity { seq: Some(seq), reason };
    let mut statement = conn.prepare(&format!("SELECT {COLUMNS} FROM audit_entries ORDER BY seq"))?;
    let mut rows = statement.query([])?;
    let mut report = AuditReport { entries: 0, first_seq: None, last_seq: None, head: NO_HASH.to_owned() };
    let mut seen_head = head.is_none_or(|head| head == NO_HASH);
    while let Some(row) = rows.next()? {
        let seq: i64 = row.get(TEXTS)?;
        let expected = report.entries + 1;
        if seq != expected {
            return Err(broken(expected, format!("entry {expected} is missing, entry {seq} follows")));
        }
        let text = |at| row.get_ref(at).map(|value| value.as_str_or_null().unwrap_or(None));
        if text(CONTENT)? != Some(report.head.as_str()) {
            return Err(broken(seq, format!("entry {seq} does not follow the one before it")));
        }
        let mut content = [None; CONTENT];
        for (at, field) in content.iter_mut().enumerate() {
            *field = text(at)?;
        }
        let computed = hash(seq, &report.head, content);
        if text(CONTENT + 1)? != Some(computed.as_str()) {
            return Err(broken(seq, format!("entry {seq} was changed after it was written")));
        }
        each(&AuditFields { seq: Some(seq), ..fields(&content) })?;
        seen_head |= head == Some(computed.as_str());
        report = AuditReport { entries: expected, first_seq: Some(1), last_seq: Some(seq), head: computed };
    }
    check_head(head, seen_head, report)
}

pub(crate) fn check_head(head: Option<&str>, seen: bool, report: AuditReport) -> Result<AuditReport> {
    match head {
        Some(head) if !seen && head != NO_HASH => Err(Error::AuditIntegrity {
            seq: None,
            reason: format!("no entry has the hash {head} noted earlier: the log was cut or rebuilt"),
        }),
        _ => Ok(report),
    }
}

/// Appends a line about the operator's own doings, in their transaction.
pub(crate) fn note(
    tx: &Transaction<'_>,
    bottle_slug: &str,
    component: &str,
    action: &str,
    notes: &str,
    by: &str,
    surface: Surface,
) -> Result<()> {
    append(
        tx,
        &AuditEntry::from(AuditFields {
            timestamp: clock::now().as_str(),
            bottle_slug,
            component,
            operator_action: action,
            operator_notes: notes,
            decided_by: by,
            surface: surface.as_str(),
            ..AuditFields::default()
        }),
    )
    .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_cannot_run_into_each_other() {
        let one = hash(1, NO_HASH, [Some("ab"), Some("c"), None]);
        assert_ne!(one, hash(1, NO_HASH, [Some("a"), Some("bc"), None]));
        assert_ne!(one, hash(1, NO_HASH, [Some("ab"), Some("c"), Some("")]));
        assert_ne!(one, hash(2, NO_HASH, [Some("ab"), Some("c"), None]));
        assert_eq!(one, hash(1, NO_HASH, [Some("ab"), Some("c"), None]));
    }
}
