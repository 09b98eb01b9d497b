//! What is written to the audit log and read from it?

use std::path::Path;

use rusqlite::types::ToSql;

use crate::audit::entry::{AuditEntry, AuditReport, COLUMNS, NO_HASH, append, check_head, last};
use crate::broker::Broker;
use crate::error::{Error, Result};
use crate::file::bell::Rings;
use crate::rules::{check_hash, check_time};
use crate::stores::reconcile::reconcile;
use crate::stores::transport::Transport;

/// The append-only audit log.
pub struct AuditStore {
    transport: Transport,
}

impl AuditStore {
    /// A handle; opens nothing.
    pub fn new(path: Option<&Path>) -> Result<Self> {
        Ok(AuditStore { transport: Transport::file(path)? })
    }

    /// A handle on the host's log, for a bottle's own entries; asks nothing yet.
    pub fn over(broker: &Broker) -> Self {
        AuditStore { transport: Transport::broker(broker) }
    }

    /// The path of the file it is in, or the broker's URL.
    pub fn location(&self) -> String {
        self.transport.location()
    }

    /// Ends its use.
    pub fn close(&self) {
        self.transport.close();
    }

    /// Appends one entry.
    pub fn write_audit_entry(&self, entry: &AuditEntry) -> Result<AuditEntry> {
        let mut written = self.write_audit_entries(std::slice::from_ref(entry))?;
        Ok(written.pop().expect("as many are written as were given"))
    }

    /// Appends all or none.
    pub fn write_audit_entries(&self, entries: &[AuditEntry]) -> Result<Vec<AuditEntry>> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        match &self.transport {
            Transport::Broker(broker) => broker.write_audit_entries(entries),
            Transport::File(db) => db.write(|tx| {
                let written = entries.iter().map(|entry| append(tx, entry)).collect::<Result<_>>()?;
                Ok((written, Rings::NONE))
            }),
        }
    }

    /// The newest `limit` entries that match, in order of writing.
    pub fn read_audit_entries(
        &self,
        component: Option<&str>,
        bottle_slug: Option<&str>,
        since: Option<&str>,
        limit: Option<u32>,
    ) -> Result<Vec<AuditEntry>> {
        let db = self.transport.host_only("read the audit log")?;
        let since = since.map(|since| check_time("since", since)).transpose()?;
        // A condition that is not asked for is not in the SQL: `:x IS NULL OR …` would keep SQLite off the indexes. With
        // a lower bound for seq it needs not look at older entries; the order of writing is not quite that of the clock.
        let asked: [(&str, &str, Option<&dyn ToSql>); 3] = [
            (":component", "component = :component", component.as_ref().map(|value| value as &dyn ToSql)),
            (":bottle_slug", "bottle_slug = :bottle_slug", bottle_slug.as_ref().map(|value| value as &dyn ToSql)),
            (
                ":since",
                "timestamp >= :since AND seq >= (SELECT min(seq) FROM audit_entries INDEXED BY audit_entries_by_time
                     WHERE timestamp >= :since)",
                since.as_ref().map(|value| value as &dyn ToSql),
            ),
        ];
        let limit = limit.map_or(-1, i64::from);
        let mut conditions = Vec::new();
        let mut values: Vec<(&str, &dyn ToSql)> = vec![(":limit", &limit)];
        for (name, condition, value) in asked {
            if let Some(value) = value {
                conditions.push(condition);
                values.push((name, value));
            }
        }
        let filter = if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) };
        // SQLite would as soon take another, and look at the row of every bottle's entry.
        let index = match (bottle_slug, component) {
            (Some(_), Some(_)) => "INDEXED BY audit_entries_by_bottle_and_component",
            (Some(_), None) => "INDEXED BY audit_entries_by_bottle",
            (None, Some(_)) => "INDEXED BY audit_entries_by_component",
            (None, None) => "",
        };
        let sql = format!("SELECT {COLUMNS} FROM audit_entries {index} {filter} ORDER BY seq DESC LIMIT :limit");
        let entries = db.read(|conn| {
            let mut statement = conn.prepare_cached(&sql)?;
            let rows = statement.query_map(values.as_slice(), AuditEntry::from_row)?;
            let mut entries = Vec::with_capacity(usize::try_from(limit).unwrap_or(0).min(1000));
            for entry in rows {
                entries.push(entry?);
            }
            entries.reverse();
            Ok(entries)
        })?;
        Ok(entries.unwrap_or_default())
    }

    /// Recomputes the chain and holds it against the decisions, grants and applied files that are there, in one snapshot.
    /// With `head`, an entry with that hash must be in it.
    pub fn verify(&self, head: Option<&str>) -> Result<AuditReport> {
        if let Some(head) = head {
            check_hash("head", head)?;
        }
        // A connection of its own: a log of millions takes seconds, and readers share theirs.
        let opened = self.transport.host_only("verify the audit log")?.shared()?.open(false)?;
        match opened {
            Some(opened) => {
                let verified = || {
                    let _snapshot = opened.conn.unchecked_transaction()?;
                    reconcile(&opened.conn, head)
                };
                let verified = verified().map_err(|error: Error| error.at(&opened.file));
                opened.check_whole()?;
                let (report, mismatches) = verified?;
                let Some(first) = mismatches.first() else { return Ok(report) };
                let reason = match mismatches.len() {
                    1 => first.reason.clone(),
                    more => format!("{} (and {} more, which `bot-bottle db check` names)", first.reason, more - 1),
                };
                Err(Error::AuditIntegrity { seq: None, reason })
            }
            None => check_head(
                head,
                false,
                AuditReport { entries: 0, first_seq: None, last_seq: None, head: NO_HASH.to_owned() },
            ),
        }
    }

    /// Hash of the last entry.
    pub fn head(&self) -> Result<String> {
        let db = self.transport.host_only("read the audit log")?;
        Ok(db.read(last)?.map_or_else(|| NO_HASH.to_owned(), |(_, hash)| hash))
    }
}
