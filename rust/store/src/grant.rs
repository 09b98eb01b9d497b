//! What does an approval still allow, and how is a use of it spent only once?

use std::path::Path;
use std::time::Duration;

use rusqlite::{OptionalExtension, Row, named_params};
use serde::{Deserialize, Serialize};

use crate::audit::entry as audit;
use crate::broker::Broker;
use crate::clock;
use crate::error::{Error, Result};
use crate::file::connection::Transaction;
use crate::file::database::Rings;
use crate::queue::proposal::{Proposal, check_name, check_text, check_time, new_id};
use crate::queue::response::os_user;
use crate::stores::transport::Transport;

/// Leave to do a thing again without asking.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)] // named and explained in the Python stub and the schema
pub struct Grant {
    pub id: String,
    pub bottle_slug: String,
    pub tool: String,
    pub fingerprint: String,
    pub scope: String,
    pub uses_left: Option<i64>,
    pub expires_at: Option<String>,
    pub proposal_id: Option<String>,
    pub created_at: String,
    pub created_by: String,
    pub last_used_at: Option<String>,
    pub revoked_at: Option<String>,
    pub revoked_by: Option<String>,
    pub live: bool,
}

const COLUMNS: &str = "id, bottle_slug, tool, fingerprint, scope, uses_left, expires_at, proposal_id, created_at, \
     created_by, last_used_at, revoked_at, revoked_by";

const LIVE: &str =
    "revoked_at IS NULL AND (uses_left IS NULL OR uses_left > 0) AND (expires_at IS NULL OR expires_at > :now)";

fn from_row(row: &Row<'_>) -> rusqlite::Result<Grant> {
    Ok(Grant {
        id: row.get(0)?,
        bottle_slug: row.get(1)?,
        tool: row.get(2)?,
        fingerprint: row.get(3)?,
        scope: row.get(4)?,
        uses_left: row.get(5)?,
        expires_at: row.get(6)?,
        proposal_id: row.get(7)?,
        created_at: row.get(8)?,
        created_by: row.get(9)?,
        last_used_at: row.get(10)?,
        revoked_at: row.get(11)?,
        revoked_by: row.get(12)?,
        live: row.get(13)?,
    })
}

/// For how long an approval holds.
pub(crate) struct Scope {
    name: &'static str,
    uses: Option<i64>,
    expires_at: Option<String>,
}

impl Scope {
    /// `once`, `uses:N`, `until:<RFC 3339>`, `for:<seconds>`, `bottle`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let refused = || {
            let reason = format!("must be once, uses:N, until:<RFC 3339>, for:<seconds> or bottle, not {text:?}");
            Error::input("grant", reason)
        };
        let scope = |name, uses, expires_at| Ok(Scope { name, uses, expires_at });
        match text.split_once(':') {
            None if text == "once" => scope("once", Some(1), None),
            None if text == "bottle" => scope("bottle", None, None),
            Some(("uses", count)) => match count.parse() {
                Ok(count @ 1..=1_000_000) => scope("uses", Some(count), None),
                _ => Err(refused()),
            },
            Some(("until", at)) => {
                let at = check_time("grant", at)?;
                if at <= clock::now() {
                    return Err(Error::input("grant", format!("ends at {at}, which has passed")));
                }
                scope("until", None, Some(at))
            }
            Some(("for", seconds)) => match seconds.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok()) {
                Some(span) if !span.is_zero() => scope("until", None, Some(clock::after(span))),
                _ => Err(refused()),
            },
            _ => Err(refused()),
        }
    }
}

pub(crate) fn create(
    tx: &Transaction<'_>,
    proposal: &Proposal,
    fingerprint: &str,
    scope: &Scope,
    by: &str,
    now: &str,
) -> Result<()> {
    const CREATE_SQL: &str = "INSERT INTO grants (id, bottle_slug, tool, fingerprint, scope, uses_left, expires_at,
             proposal_id, created_at, created_by)
         VALUES (:id, :bottle_slug, :tool, :fingerprint, :scope, :uses, :expires_at, :proposal_id, :now, :by)";
    tx.prepare_cached(CREATE_SQL)?.execute(named_params! {
        ":id": new_id(),
        ":bottle_slug": proposal.bottle_slug,
        ":tool": proposal.tool,
        ":fingerprint": fingerprint,
        ":scope": scope.name,
        ":uses": scope.uses,
        ":expires_at": scope.expires_at,
        ":proposal_id": proposal.id,
        ":now": now,
        ":by": by,
    })?;
    Ok(())
}

/// Ends the grants that were for a bottle's life.
pub(crate) fn end_with_bottle(tx: &Transaction<'_>, slug: &str) -> Result<()> {
    const END_SQL: &str = "UPDATE grants SET revoked_at = :now, revoked_by = 'bottle stopped'
         WHERE bottle_slug = :slug AND scope = 'bottle' AND revoked_at IS NULL";
    tx.prepare_cached(END_SQL)?.execute(named_params! {":slug": slug, ":now": clock::now()})?;
    Ok(())
}

/// All grants of the file.
pub struct GrantStore {
    transport: Transport,
}

impl GrantStore {
    /// A handle; opens nothing.
    pub fn new(path: Option<&Path>) -> Result<Self> {
        Ok(GrantStore { transport: Transport::file(path)? })
    }

    /// A handle on the grants of the bottle that the broker's token speaks for; asks nothing yet.
    pub fn over(broker: &Broker) -> Self {
        GrantStore { transport: Transport::broker(broker) }
    }

    /// Ends its use.
    pub fn close(&self) {
        self.transport.close();
    }

    /// Spends one use of a live grant, with an audit entry, or finds none.
    pub fn use_grant(&self, bottle_slug: &str, tool: &str, fingerprint: &str) -> Result<Option<Grant>> {
        check_name("bottle_slug", bottle_slug)?;
        check_name("tool", tool)?;
        check_text("fingerprint", fingerprint.as_bytes(), 256)?;
        let db = match &self.transport {
            Transport::Broker(broker) => return broker.use_grant(bottle_slug, tool, fingerprint),
            Transport::File(db) => db,
        };
        const FILTER: &str = "bottle_slug = :bottle_slug AND tool = :tool AND fingerprint = :fingerprint";
        let now = clock::now();
        let params =
            named_params! {":bottle_slug": bottle_slug, ":tool": tool, ":fingerprint": fingerprint, ":now": now};
        // Most requests have no grant: they need not stand in the writers' queue to learn it.
        let any = db.read(|conn| {
            let mut statement = conn.prepare_cached(&format!("SELECT 1 FROM grants WHERE {FILTER} AND {LIVE}"))?;
            Ok(statement.exists(params)?)
        })?;
        if any != Some(true) {
            return Ok(None);
        }
        // Grants without a count go first, then the ones that end soonest: a use that was counted is kept.
        let spend = format!(
            "UPDATE grants SET uses_left = uses_left - 1, last_used_at = :now
             WHERE id = (SELECT id FROM grants WHERE {FILTER} AND {LIVE}
                         ORDER BY uses_left IS NOT NULL, expires_at IS NULL, expires_at, id LIMIT 1)
               AND {LIVE}
             RETURNING {COLUMNS}, {LIVE}"
        );
        db.write(|tx| {
            let spent = tx.prepare_cached(&spend)?.query_row(params, from_row).optional()?;
            if let Some(grant) = &spent {
                // A policy's yes, never to be taken for a person's: it names the grant it rests on.
                let notes = format!("grant {} of proposal {}", grant.id, grant.proposal_id.as_deref().unwrap_or("-"));
                audit::note(tx, bottle_slug, tool, "grant-used", &notes, &grant.created_by, "policy")?;
            }
            Ok((spent, Rings::NONE))
        })
    }

    /// Grants, newest first.
    pub fn list_grants(&self, bottle_slug: Option<&str>, live: bool) -> Result<Vec<Grant>> {
        let db = self.transport.host_only("list grants")?;
        let sql = format!(
            "SELECT {COLUMNS}, {LIVE} AS live FROM grants
             WHERE (:bottle_slug IS NULL OR bottle_slug = :bottle_slug) AND (NOT :live OR {LIVE})
             ORDER BY created_at DESC, id DESC"
        );
        let grants = db.read(|conn| {
            let mut statement = conn.prepare_cached(&sql)?;
            let params = named_params! {":bottle_slug": bottle_slug, ":live": live, ":now": clock::now()};
            Ok(statement.query_map(params, from_row)?.collect::<rusqlite::Result<_>>()?)
        })?;
        Ok(grants.unwrap_or_default())
    }

    /// Ends a grant, by its id or a unique beginning of it.
    pub fn revoke_grant(&self, prefix: &str, revoked_by: Option<&str>, surface: &str) -> Result<Grant> {
        let db = self.transport.host_only("revoke grants")?;
        let by = revoked_by.map_or_else(os_user, str::to_owned);
        let revoke = format!(
            "UPDATE grants SET revoked_at = :now, revoked_by = :by WHERE id = :id AND revoked_at IS NULL
             RETURNING {COLUMNS}, {LIVE}"
        );
        let known = format!("SELECT {COLUMNS}, {LIVE} FROM grants WHERE id = :id");
        let exists = db.read(|_| Ok(()))?.is_some();
        if !exists || prefix.len() < 4 {
            return Err(Error::not_found("grant", prefix));
        }
        db.write(|tx| {
            let ids: Vec<String> = tx
                .prepare_cached("SELECT id FROM grants WHERE id >= ?1 AND id < ?1 || '~' ORDER BY id LIMIT 6")?
                .query_map([prefix], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            let id = match ids.as_slice() {
                [] => return Err(Error::not_found("grant", prefix)),
                [id] => id,
                _ => return Err(Error::Ambiguous { prefix: prefix.to_owned(), matches: ids }),
            };
            let params = named_params! {":id": id, ":now": clock::now(), ":by": by};
            let Some(grant) = tx.prepare_cached(&revoke)?.query_row(params, from_row).optional()? else {
                let params = named_params! {":id": id, ":now": clock::now()};
                return Ok((tx.prepare_cached(&known)?.query_row(params, from_row)?, Rings::NONE));
            };
            audit::note(
                tx,
                &grant.bottle_slug,
                &grant.tool,
                "grant-revoked",
                &format!("grant {}", grant.id),
                &by,
                surface,
            )?;
            Ok((grant, Rings::inbox()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_or_refused() {
        for good in ["once", "bottle", "uses:3", "for:0.5", "until:9000-01-01T00:00:00Z"] {
            assert!(Scope::parse(good).is_ok(), "{good}");
        }
        for bad in
            ["", "ever", "uses:0", "uses:-1", "uses:x", "for:0", "for:nan", "until:2001-01-01T00:00:00Z", "once:2"]
        {
            assert_eq!(Scope::parse(bad).err().map(|error| error.exit_code()), Some(2), "{bad}");
        }
    }
}
