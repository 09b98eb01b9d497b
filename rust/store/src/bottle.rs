//! Which bottles run, and which files on the host may decisions write for them?

use std::collections::BTreeMap;

use rusqlite::{Connection, Row};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::file::column::get;
use crate::queue::proposal::PENDING;
use crate::registration::Registration;
use crate::statement::Keys;

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
    /// Why nothing that its rows say is taken; `None` if this host signed them.
    pub damaged: Option<String>,
}

pub(crate) fn select(rest: &str) -> String {
    format!(
        "SELECT b.slug, b.backend, b.started_at, b.stopped_at,
             (SELECT count(*) FROM {PENDING} AND p.bottle_slug = b.slug
                AND (p.expires_at IS NULL OR p.expires_at > :now)) AS pending
         FROM bottles b {rest}"
    )
}

pub(crate) fn from_row(row: &Row<'_>) -> rusqlite::Result<Bottle> {
    Ok(Bottle {
        slug: get(row, "slug")?,
        backend: get(row, "backend")?,
        started_at: get(row, "started_at")?,
        stopped_at: get(row, "stopped_at")?,
        files: BTreeMap::new(),
        pending: get(row, "pending")?,
        damaged: None,
    })
}

/// With its files, if this host signed its registration; else with what is wrong.
pub(crate) fn settle(conn: &Connection, keys: &Keys, mut bottle: Bottle) -> Result<Bottle> {
    match Registration::read_verified(conn, keys, &bottle.slug) {
        Ok(Some(found)) => bottle.files = found.files.into_iter().collect(),
        // The row is there, but not under the name that was read: its bytes are no text.
        Ok(None) => bottle.damaged = Some("its name is not UTF-8 text".to_owned()),
        Err(error) => bottle.damaged = Some(error.damage().ok_or(error)?),
    }
    Ok(bottle)
}
