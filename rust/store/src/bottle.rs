//! Which bottles run, and which files on the host may decisions write for them?

use std::collections::BTreeMap;

use rusqlite::{Connection, Row, named_params};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::queue::proposal::PENDING;

/// A registered bottle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)] // named and explained in the Python stub and the schema
pub struct Bottle {
    pub slug: String,
    pub backend: String,
    pub started_at: String,
    pub stopped_at: Option<String>,
    pub files: BTreeMap<String, String>,
    pub pending: i64,
}

pub(crate) fn select(rest: &str) -> String {
    format!(
        "SELECT b.slug, b.backend, b.started_at, b.stopped_at,
             (SELECT count(*) FROM {PENDING} AND p.bottle_slug = b.slug
                AND (p.expires_at IS NULL OR p.expires_at > :now))
         FROM bottles b {rest}"
    )
}

pub(crate) fn from_row(row: &Row<'_>) -> rusqlite::Result<Bottle> {
    Ok(Bottle {
        slug: row.get(0)?,
        backend: row.get(1)?,
        started_at: row.get(2)?,
        stopped_at: row.get(3)?,
        files: BTreeMap::new(),
        pending: row.get(4)?,
    })
}

pub(crate) fn with_files(conn: &Connection, mut bottle: Bottle) -> Result<Bottle> {
    const FILES_SQL: &str = "SELECT tool, path FROM managed_files WHERE bottle_slug = :slug";
    let mut statement = conn.prepare_cached(FILES_SQL)?;
    let rows = statement.query_map(named_params! {":slug": bottle.slug}, |row| Ok((row.get(0)?, row.get(1)?)))?;
    bottle.files = rows.collect::<rusqlite::Result<_>>()?;
    Ok(bottle)
}
