//! How do bottles come and go, and how does the broker know them?

use std::path::{Component, Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rusqlite::{OptionalExtension, named_params};

use crate::bottle::{Bottle, from_row, select, settle};
use crate::diff::sha256_hex;
use crate::error::{Error, Result};
use crate::file::bell::Rings;
use crate::file::column::get;
use crate::file::database::Database;
use crate::file::layout;
use crate::file::transaction::Transaction;
use crate::queue::life;
use crate::queue::managed_file::{Place, hash_of};
use crate::queue::proposal::PENDING;
use crate::registration::{Registration, note_damage, record_damage};
use crate::rules::{MAX_NOTES_BYTES, check_name, check_text};
use crate::state::{State, Transport, Vocabulary};
use crate::statement::Keys;
use crate::{clock, grant};

/// The register of bottles.
pub struct BottleStore {
    pub(crate) db: Database,
}

impl BottleStore {
    /// A handle; opens nothing.
    pub fn new(path: Option<&Path>) -> Result<Self> {
        Ok(BottleStore { db: Database::new(path)? })
    }

    /// The file it is in.
    pub fn database(&self) -> &Database {
        &self.db
    }

    /// Records a bottle as running, with its managed files (tool → path), and signs that. Tokens that are valid stay so.
    pub fn register(&self, slug: &str, backend: &str, transport: &str, files: &[(String, PathBuf)]) -> Result<Bottle> {
        const DECLARE_SQL: &str = "INSERT INTO managed_files (bottle_slug, tool, path, known_sha256)
             VALUES (:slug, :tool, :path, :known)";
        check_name("bottle_slug", slug)?;
        check_name("backend", backend)?;
        let transport: Transport = transport.parse()?;
        let mut declared = Vec::new();
        for (tool, path) in files {
            check_name("tool", tool)?;
            let (path, known) = settle_path(slug, path)?;
            declared.push((tool, path, known));
        }
        self.sign(
            |tx, found| {
                tx.execute("DELETE FROM managed_files WHERE bottle_slug = ?1", [slug])?;
                let tokens = match found {
                    Some(Ok(found)) if found.stopped_at.is_none() => found.tokens,
                    _ => Vec::new(),
                };
                if tokens.is_empty() {
                    revoke_tokens(tx, slug)?;
                }
                let registration = Registration {
                    slug: slug.to_owned(),
                    backend: backend.to_owned(),
                    transport: transport.as_str().to_owned(),
                    started_at: clock::now(),
                    files: declared.iter().map(|(tool, path, _)| ((*tool).clone(), path.clone())).collect(),
                    tokens,
                    ..Registration::default()
                };
                Ok(registration)
            },
            slug,
            |tx| {
                for (tool, path, known) in &declared {
                    tx.execute(
                        DECLARE_SQL,
                        named_params! {":slug": slug, ":tool": tool, ":path": path, ":known": known},
                    )?;
                }
                Ok(((), Rings::inbox()))
            },
        )?;
        self.read_bottle(slug)?.ok_or_else(|| Error::not_found("bottle", slug))
    }

    /// Marks it stopped, withdraws what is pending, ends its grants and tokens; how many were withdrawn.
    pub fn stop(&self, slug: &str, reason: &str) -> Result<usize> {
        check_name("bottle_slug", slug)?;
        check_text("reason", reason.as_bytes(), MAX_NOTES_BYTES)?;
        if self.read_bottle(slug)?.is_none() {
            return Err(Error::not_found("bottle", slug));
        }
        let now = clock::now();
        let withdrawn = self.sign(
            |tx, found| {
                revoke_tokens(tx, slug)?;
                let found = match found {
                    Some(Ok(found)) => found,
                    // What its rows say is somebody else's: nothing of it is signed.
                    _ => {
                        tx.execute("DELETE FROM managed_files WHERE bottle_slug = ?1", [slug])?;
                        let (backend, transport) = ("unknown".to_owned(), Transport::Mount.as_str().to_owned());
                        Registration {
                            slug: slug.to_owned(),
                            backend,
                            transport,
                            started_at: now.clone(),
                            ..Default::default()
                        }
                    }
                };
                Ok(Registration {
                    stopped_at: found.stopped_at.clone().or_else(|| Some(now.clone())),
                    tokens: Vec::new(),
                    ..found
                })
            },
            slug,
            |tx| {
                grant::end_with_bottle(tx, slug)?;
                let ids: Vec<String> = tx
                    .prepare(&format!("SELECT p.id FROM {PENDING} AND p.bottle_slug = :slug"))?
                    .query_map(named_params! {":slug": slug}, |row| get(row, 0))?
                    .collect::<rusqlite::Result<_>>()?;
                let mut withdrawn = 0;
                for id in &ids {
                    let Some(found) = life::find(tx, id)? else { continue };
                    life::expire(tx, &found.queue_key, &now)?;
                    if life::find(tx, id)?.is_some_and(|found| found.state == State::Pending) {
                        life::withdraw(tx, &found, reason)?;
                        withdrawn += 1;
                    }
                }
                Ok((withdrawn, Rings::inbox()))
            },
        )?;
        // Its proposals may be in queues of other names.
        crate::file::bell::ring_all(&self.db.real_path()?);
        Ok(withdrawn)
    }

    /// A new token for the sidecars of a running bottle. Only its hash is kept, so it cannot be had again.
    pub fn issue_token(&self, slug: &str) -> Result<String> {
        const ISSUE_SQL: &str = "INSERT INTO bottle_tokens (token_sha256, bottle_slug, created_at)
             VALUES (:sha256, :slug, :now)";
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|error| {
            Error::unavailable(Path::new("the system's source of random numbers"), error.to_string())
        })?;
        let token = URL_SAFE_NO_PAD.encode(random);
        let sha256 = sha256_hex(&token);
        self.sign(
            |_, found| {
                let mut found = found.transpose()?.filter(|found| found.stopped_at.is_none());
                let mut found = found.take().ok_or_else(|| Error::not_found("running bottle", slug))?;
                found.tokens.push(sha256.clone());
                Ok(found)
            },
            slug,
            |tx| {
                let params = named_params! {":sha256": sha256, ":slug": slug, ":now": clock::now()};
                tx.prepare_cached(ISSUE_SQL)?.execute(params)?;
                Ok(((), Rings::NONE))
            },
        )?;
        Ok(token)
    }

    /// Makes the bottle's next registration of the one that is there (or of why it does not count), signs and commits it
    /// with what `rest` writes.
    fn sign<T>(
        &self,
        next: impl FnOnce(&Transaction<'_>, Option<Result<Registration>>) -> Result<Registration>,
        slug: &str,
        rest: impl FnOnce(&Transaction<'_>) -> Result<(T, Rings)>,
    ) -> Result<T> {
        let keys = Keys::of(&self.db);
        // Before the turn: the first time, a key is made.
        let signer = keys.host()?;
        let (generation, value) = self.db.write(|tx| {
            let found = match Registration::read_verified(tx, &keys, slug) {
                Ok(found) => found.map(Ok),
                Err(error @ Error::Unverified { .. }) => {
                    note_damage(tx, slug, &error.damage().unwrap_or_default())?;
                    Some(Err(error))
                }
                Err(error) => return Err(error),
            };
            let mut registration = next(tx, found)?;
            registration.write(tx, &keys, &signer)?;
            let (value, rings) = rest(tx)?;
            Ok(((registration.generation, value), rings))
        })?;
        keys.note_generation(slug, generation)?;
        Ok(value)
    }

    /// The bottle whose token this is, while it runs. It is looked up by its hash: how long that takes tells nothing of
    /// how much of a token was right. A row that this host did not sign opens nothing.
    pub fn check_token(&self, token: &str) -> Result<Option<String>> {
        const CHECK_SQL: &str = "SELECT t.bottle_slug FROM bottle_tokens t JOIN bottles b ON b.slug = t.bottle_slug
             WHERE t.token_sha256 = :sha256 AND t.revoked_at IS NULL AND b.stopped_at IS NULL";
        let sha256 = sha256_hex(token);
        let keys = Keys::of(&self.db);
        let slug = self.db.read(|conn| {
            let params = named_params! {":sha256": sha256};
            let slug: Option<String> =
                conn.prepare_cached(CHECK_SQL)?.query_row(params, |row| get(row, 0)).optional()?;
            let Some(slug) = slug else { return Ok(None) };
            Ok(Some((Registration::read_verified(conn, &keys, &slug), slug)))
        })?;
        match slug.flatten() {
            None | Some((Ok(None), _)) => Ok(None),
            Some((Ok(Some(found)), slug)) => {
                Ok((found.stopped_at.is_none() && found.tokens.contains(&sha256)).then_some(slug))
            }
            // Refused like one that nobody knows; the host's log says why.
            Some((Err(error @ Error::Unverified { .. }), slug)) => {
                record_damage(&self.db, &slug, &error.damage().unwrap_or_default())?;
                Ok(None)
            }
            Some((Err(error), _)) => Err(error),
        }
    }

    /// Bottles by slug.
    pub fn list_bottles(&self, running: bool) -> Result<Vec<Bottle>> {
        let keys = Keys::of(&self.db);
        let bottles = self.db.read(|conn| {
            let mut statement =
                conn.prepare_cached(&select("WHERE NOT :running OR b.stopped_at IS NULL ORDER BY b.slug"))?;
            let rows = statement.query_map(named_params! {":running": running, ":now": clock::now()}, from_row)?;
            rows.map(|bottle| settle(conn, &keys, bottle?)).collect()
        })?;
        Ok(bottles.unwrap_or_default())
    }

    /// One bottle.
    pub fn read_bottle(&self, slug: &str) -> Result<Option<Bottle>> {
        let keys = Keys::of(&self.db);
        let bottle = self.db.read(|conn| {
            let mut statement = conn.prepare_cached(&select("WHERE b.slug = :slug"))?;
            let params = named_params! {":slug": slug, ":now": clock::now()};
            let bottle = statement.query_row(params, from_row).optional()?;
            bottle.map(|bottle| settle(conn, &keys, bottle)).transpose()
        })?;
        Ok(bottle.flatten())
    }
}

fn revoke_tokens(tx: &Transaction<'_>, slug: &str) -> Result<()> {
    const REVOKE_SQL: &str =
        "UPDATE bottle_tokens SET revoked_at = :now WHERE bottle_slug = :slug AND revoked_at IS NULL";
    tx.execute(REVOKE_SQL, named_params! {":slug": slug, ":now": clock::now()})?;
    Ok(())
}

/// The absolute path of a managed file, and its hash. A relative one is in the bottle's own directory and stays there.
fn settle_path(slug: &str, path: &Path) -> Result<(String, String)> {
    let refused = |reason: &str| Error::input("managed file", format!("{} {reason}", path.display()));
    if path.components().any(|part| matches!(part, Component::ParentDir)) {
        return Err(refused("leaves its directory; give it without .."));
    }
    let own = layout::bottle_dir(slug)?;
    let full = own.join(path); // an absolute path stays as it is
    if full.starts_with(&own) && !own.exists() {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&own)
            .map_err(|error| Error::unavailable(&own, error))?;
    }
    let (Some(parent), Some(name)) = (full.parent(), full.file_name()) else { return Err(refused("names no file")) };
    let parent = std::fs::canonicalize(parent)
        .map_err(|error| refused(&format!("is in a directory that cannot be used: {error}")))?;
    if path.is_relative() && !parent.starts_with(std::fs::canonicalize(&own).unwrap_or(own)) {
        return Err(refused("leaves its bottle's directory through a symlink"));
    }
    let settled = parent.join(name);
    let known = hash_of(Place::open(&settled)?.read()?.as_deref());
    let text = settled.to_str().ok_or_else(|| refused("is not UTF-8"))?;
    Ok((text.to_owned(), known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_its_bottle_s_until_it_stops() {
        let dir = tempfile::tempdir().unwrap();
        let bottles = BottleStore::new(Some(&dir.path().join("test.db"))).unwrap();
        assert_eq!(bottles.check_token("x").unwrap(), None);
        assert_eq!(bottles.issue_token("dev").unwrap_err().exit_code(), 4);
        bottles.register("dev", "docker", "broker", &[]).unwrap();
        let token = bottles.issue_token("dev").unwrap();
        assert_eq!(token.len(), 43);
        assert_ne!(token, bottles.issue_token("dev").unwrap());
        assert_eq!(bottles.check_token(&token).unwrap().as_deref(), Some("dev"));
        assert_eq!(bottles.check_token(&sha256_hex(&token)).unwrap(), None);
        bottles.stop("dev", "done").unwrap();
        assert_eq!(bottles.check_token(&token).unwrap(), None);
        assert_eq!(bottles.issue_token("dev").unwrap_err().exit_code(), 4);
        bottles.register("dev", "docker", "broker", &[]).unwrap();
        assert_eq!(bottles.check_token(&token).unwrap(), None);
    }
}
