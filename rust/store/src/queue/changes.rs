//! What happened to which proposal, for whoever watches?

use std::sync::LazyLock;

use rusqlite::{Connection, OptionalExtension, Row, named_params};
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::error::Result;
use crate::file::column::get;
use crate::file::numbers;
use crate::file::transaction::Transaction;
use crate::state::{ChangeKind, Stored};

/// One step of a proposal's life.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)]
pub struct Change {
    pub seq: i64,
    pub kind: Stored<ChangeKind>,
    pub proposal_id: String,
    pub bottle_slug: String,
    pub tool: String,
    pub at: String,
}

/// Notes a step, for whoever watches.
pub(crate) fn record(tx: &Transaction<'_>, kind: ChangeKind, id: &str, bottle_slug: &str, tool: &str) -> Result<()> {
    static RECORD_SQL: LazyLock<String> = LazyLock::new(|| {
        let next = numbers::next("changes");
        format!(
            "INSERT INTO changes (seq, kind, proposal_id, bottle_slug, tool, at) VALUES ({next}, ?1, ?2, ?3, ?4, ?5)"
        )
    });
    tx.prepare_cached(&RECORD_SQL)?.execute((kind, id, bottle_slug, tool, clock::now()))?;
    Ok(())
}

/// `seq` of the newest change.
pub(crate) fn last_change(conn: &Connection) -> Result<i64> {
    static LAST_SQL: LazyLock<String> = LazyLock::new(|| format!("SELECT ifnull({}, 0)", numbers::last("changes")));
    Ok(conn.prepare_cached(&LAST_SQL)?.query_row([], |row| get(row, 0))?)
}

pub(crate) const CHANGE_COLUMNS: &str = "seq, kind, proposal_id, bottle_slug, tool, at";

pub(crate) fn change_from_row(row: &Row<'_>) -> rusqlite::Result<Change> {
    Ok(Change {
        seq: get(row, "seq")?,
        kind: get(row, "kind")?,
        proposal_id: get(row, "proposal_id")?,
        bottle_slug: get(row, "bottle_slug")?,
        tool: get(row, "tool")?,
        at: get(row, "at")?,
    })
}

/// The newest change.
pub(crate) fn newest_change(conn: &Connection) -> Result<Option<Change>> {
    let sql = format!("SELECT {CHANGE_COLUMNS} FROM changes WHERE seq = {}", numbers::last("changes"));
    Ok(conn.prepare_cached(&sql)?.query_row([], change_from_row).optional()?)
}

/// Makes what comes next larger than `newest`: a restored backup must not take those who watch back in the numbers.
pub(crate) fn go_on_from(tx: &Transaction<'_>, newest: &Change) -> Result<()> {
    const GO_ON_SQL: &str = "INSERT INTO changes (seq, kind, proposal_id, bottle_slug, tool, at)
         SELECT :seq, :kind, :id, :bottle_slug, :tool, :at WHERE :seq > :last";
    let last = last_change(tx)?;
    tx.prepare_cached(GO_ON_SQL)?.execute(named_params! {
        ":seq": newest.seq,
        ":kind": newest.kind,
        ":id": newest.proposal_id,
        ":bottle_slug": newest.bottle_slug,
        ":tool": newest.tool,
        ":at": newest.at,
        ":last": last,
    })?;
    Ok(())
}
