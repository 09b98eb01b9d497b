//! How are grants spent, listed and revoked?

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, ToSql, named_params};

use crate::audit::entry as audit;
use crate::broker::Broker;
use crate::clock;
use crate::error::{Error, Result};
use crate::file::bell::Rings;
use crate::file::column::get;
use crate::file::database::Database;
use crate::grant::{self, COLUMNS, Grant, LIVE, from_row};
use crate::registration::record_damage;
use crate::rules::{MAX_FINGERPRINT_BYTES, check_name, check_text};
use crate::state::Surface;
use crate::statement::Keys;
use crate::stores::transport::Transport;
use crate::stores::trust::Trust;
use crate::user::os_user;

const FILTER: &str = "bottle_slug = :bottle_slug AND tool = :tool AND fingerprint = :fingerprint";

/// What a grant would have to be about, and since when.
struct Asked<'a> {
    bottle_slug: &'a str,
    tool: &'a str,
    fingerprint: &'a str,
    now: String,
}

impl<'a> Asked<'a> {
    fn new(bottle_slug: &'a str, tool: &'a str, fingerprint: &'a str) -> Result<Self> {
        check_name("bottle_slug", bottle_slug)?;
        check_name("tool", tool)?;
        check_text("fingerprint", fingerprint.as_bytes(), MAX_FINGERPRINT_BYTES)?;
        Ok(Asked { bottle_slug, tool, fingerprint, now: clock::now() })
    }

    fn params(&self) -> [(&str, &dyn ToSql); 4] {
        [
            (":bottle_slug", &self.bottle_slug),
            (":tool", &self.tool),
            (":fingerprint", &self.fingerprint),
            (":now", &self.now),
        ]
    }
}

/// All grants of the file.
pub struct GrantStore {
    transport: Transport,
    trust: Arc<Trust>,
}

impl GrantStore {
    /// A handle; opens nothing.
    pub fn new(path: Option<&Path>) -> Result<Self> {
        Ok(GrantStore { transport: Transport::file(path)?, trust: Arc::default() })
    }

    /// A handle on the grants of the bottle that the broker's token speaks for; asks nothing yet.
    pub fn over(broker: &Broker) -> Self {
        GrantStore { transport: Transport::broker(broker), trust: Arc::default() }
    }

    /// The same, using only grants that a key in this file signed.
    pub fn trusting(mut self, keyring: Option<&Path>) -> Self {
        self.trust = keyring.map_or_else(Arc::default, Trust::keys);
        self
    }

    /// The path of the file they are in, or the broker's URL.
    pub fn location(&self) -> String {
        self.transport.location()
    }

    /// Ends its use.
    pub fn close(&self) {
        self.transport.close();
    }

    /// The live grant whose use would be spent next, which stays as it is.
    pub fn find_grant(&self, bottle_slug: &str, tool: &str, fingerprint: &str) -> Result<Option<Grant>> {
        let asked = Asked::new(bottle_slug, tool, fingerprint)?;
        let db = match &self.transport {
            Transport::Broker(broker) => {
                return self.trusted(&asked, broker.find_grant(bottle_slug, tool, fingerprint)?);
            }
            Transport::File(db) => db,
        };
        let (found, refused) = db.read(|conn| self.candidate(conn, &asked))?.unwrap_or_default();
        answered(db, &asked, found, refused)
    }

    /// Spends one use of a live grant, with an audit entry, or finds none.
    pub fn use_grant(&self, bottle_slug: &str, tool: &str, fingerprint: &str) -> Result<Option<Grant>> {
        let asked = Asked::new(bottle_slug, tool, fingerprint)?;
        let db = match &self.transport {
            Transport::Broker(broker) => {
                return self.trusted(&asked, broker.use_grant(bottle_slug, tool, fingerprint)?);
            }
            Transport::File(db) => db,
        };
        // Most requests have no grant: they need not stand in the writers' queue to learn it.
        let any = db.read(|conn| {
            let mut statement = conn.prepare_cached(&format!("SELECT 1 FROM grants WHERE {FILTER} AND {LIVE}"))?;
            Ok(statement.exists(&asked.params())?)
        })?;
        if any != Some(true) {
            return Ok(None);
        }
        let spend = format!(
            "UPDATE grants SET uses_left = uses_left - 1, last_used_at = :now WHERE id = :id AND {LIVE}
             RETURNING {COLUMNS}, {LIVE} AS live"
        );
        let (spent, refused) = db.write(|tx| {
            let (found, refused) = self.candidate(tx, &asked)?;
            let Some(found) = found else { return Ok(((None, refused), Rings::NONE)) };
            let params = named_params! {":id": found.id, ":now": asked.now};
            let spent = tx.prepare_cached(&spend)?.query_row(params, from_row).optional()?;
            if let Some(grant) = &spent {
                // A policy's yes, never to be taken for a person's: it names the grant it rests on.
                let notes = format!("grant {} of proposal {}", grant.id, grant.proposal_id.as_deref().unwrap_or("-"));
                audit::note(tx, bottle_slug, tool, grant::USED, &notes, &grant.created_by, Surface::Policy)?;
            }
            Ok(((spent, None), Rings::NONE))
        })?;
        answered(db, &asked, spent, refused)
    }

    fn trusted(&self, asked: &Asked<'_>, grant: Option<Grant>) -> Result<Option<Grant>> {
        let Asked { bottle_slug, tool, fingerprint, .. } = *asked;
        grant.map(|grant| self.trust.grant(bottle_slug, tool, fingerprint, &grant).map(|()| grant)).transpose()
    }

    /// The first live grant that is trusted; if there is none, why the last one is not.
    fn candidate(&self, conn: &Connection, asked: &Asked<'_>) -> Result<(Option<Grant>, Option<Error>)> {
        // Grants without a count go first, then the ones that end soonest: a use that was counted is kept.
        let mut statement = conn.prepare_cached(&format!(
            "SELECT {COLUMNS}, {LIVE} AS live FROM grants WHERE {FILTER} AND {LIVE}
             ORDER BY uses_left IS NOT NULL, expires_at IS NULL, expires_at, id"
        ))?;
        let mut refused = None;
        let mut rows = statement.query(&asked.params())?;
        while let Some(row) = rows.next()? {
            match self.trusted(asked, Some(from_row(row)?)) {
                Ok(found) => return Ok((found, None)),
                Err(error) => refused = Some(error),
            }
        }
        Ok((None, refused))
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
            Ok(statement.query_map(params, from_row)?.collect::<rusqlite::Result<Vec<_>>>()?)
        })?;
        let mut grants = grants.unwrap_or_default();
        if grants.is_empty() {
            return Ok(grants);
        }
        let keyring = Keys::of(db).keyring()?;
        for grant in &mut grants {
            grant.damaged = grant.verify(&keyring).err().and_then(|error| error.damage());
            grant.live &= grant.damaged.is_none();
        }
        Ok(grants)
    }

    /// Ends a grant, by its id or a unique beginning of it.
    pub fn revoke_grant(&self, prefix: &str, revoked_by: Option<&str>, surface: Surface) -> Result<Grant> {
        let db = self.transport.host_only("revoke grants")?;
        let by = revoked_by.map_or_else(os_user, str::to_owned);
        let revoke = format!(
            "UPDATE grants SET revoked_at = :now, revoked_by = :by WHERE id = :id AND revoked_at IS NULL
             RETURNING {COLUMNS}, {LIVE} AS live"
        );
        let known = format!("SELECT {COLUMNS}, {LIVE} AS live FROM grants WHERE id = :id");
        let exists = db.read(|_| Ok(()))?.is_some();
        if !exists || prefix.len() < 4 {
            return Err(Error::not_found("grant", prefix));
        }
        db.write(|tx| {
            let ids: Vec<String> = tx
                .prepare_cached("SELECT id FROM grants WHERE id >= ?1 AND id < ?1 || '~' ORDER BY id LIMIT 6")?
                .query_map([prefix], |row| get(row, 0))?
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
                grant::REVOKED,
                &format!("grant {}", grant.id),
                &by,
                surface,
            )?;
            Ok((grant, Rings::inbox()))
        })
    }
}

fn answered(db: &Database, asked: &Asked<'_>, grant: Option<Grant>, refused: Option<Error>) -> Result<Option<Grant>> {
    match refused {
        Some(error) => {
            // What is refused is refused, whether or not that can be written down.
            let _ = record_damage(db, asked.bottle_slug, &error.damage().unwrap_or_default());
            Err(error)
        }
        None => Ok(grant),
    }
}
