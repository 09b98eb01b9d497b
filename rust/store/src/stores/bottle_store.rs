//! How do bottles come and go, and how does the broker know them?

use std::path::{Component, Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rusqlite::{OptionalExtension, named_params};

use crate::bottle::{Bottle, from_row, select, with_files};
use crate::diff::sha256_hex;
use crate::error::{Error, Result};
use crate::file::bell::Rings;
use crate::file::database::Database;
use crate::file::layout;
use crate::queue::life;
use crate::queue::managed_file::{Place, hash_of};
use crate::queue::proposal::PENDING;
use crate::rules::{MAX_NOTES_BYTES, check_name, check_text};
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

    /// Records a bottle as running, with its managed files (tool → path).
    pub fn register(&self, slug: &str, backend: &str, files: &[(String, PathBuf)]) -> Result<Bottle> {
        const REGISTER_SQL: &str = "INSERT INTO bottles (slug, backend, started_at) VALUES (:slug, :backend, :now)
             ON CONFLICT (slug) DO UPDATE SET backend = excluded.backend, started_at = excluded.started_at, stopped_at = NULL";
        const DECLARE_SQL: &str = "INSERT INTO managed_files (bottle_slug, tool, path, known_sha256)
             VALUES (:slug, :tool, :path, :known)";
        check_name("bottle_slug", slug)?;
        check_name("backend", backend)?;
        let mut declared = Vec::new();
        for (tool, path) in files {
            check_name("tool", tool)?;
            let (path, known) = settle_path(slug, path)?;
            declared.push((tool, path, known));
        }
        self.db.write(|tx| {
            tx.execute(REGISTER_SQL, named_params! {":slug": slug, ":backend": backend, ":now": clock::now()})?;
            tx.execute("DELETE FROM managed_files WHERE bottle_slug = ?1", [slug])?;
            for (tool, path, known) in &declared {
                tx.execute(DECLARE_SQL, named_params! {":slug": slug, ":tool": tool, ":path": path, ":known": known})?;
            }
            Ok(((), Rings::inbox()))
        })?;
        self.read_bottle(slug)?.ok_or_else(|| Error::not_found("bottle", slug))
    }

    /// Marks it stopped, withdraws what is pending, ends its grants and tokens; how many were withdrawn.
    pub fn stop(&self, slug: &str, reason: &str) -> Result<usize> {
        const STOP_SQL: &str = "UPDATE bottles SET stopped_at = coalesce(stopped_at, :now) WHERE slug = :slug";
        const REVOKE_SQL: &str =
            "UPDATE bottle_tokens SET revoked_at = :now WHERE bottle_slug = :slug AND revoked_at IS NULL";
        check_text("reason", reason.as_bytes(), MAX_NOTES_BYTES)?;
        if self.read_bottle(slug)?.is_none() {
            return Err(Error::not_found("bottle", slug));
        }
        let withdrawn = self.db.write(|tx| {
            let now = clock::now();
            tx.execute(STOP_SQL, named_params! {":slug": slug, ":now": now})?;
            tx.execute(REVOKE_SQL, named_params! {":slug": slug, ":now": now})?;
            grant::end_with_bottle(tx, slug)?;
            let ids: Vec<String> = tx
                .prepare(&format!("SELECT p.id FROM {PENDING} AND p.bottle_slug = :slug"))?
                .query_map(named_params! {":slug": slug}, |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            let mut withdrawn = 0;
            for id in &ids {
                let Some(found) = life::find(tx, id)? else { continue };
                life::expire(tx, &found.queue_key, &now)?;
                if life::find(tx, id)?.is_some_and(|found| found.state == "pending") {
                    life::withdraw(tx, &found, reason)?;
                    withdrawn += 1;
                }
            }
            Ok((withdrawn, Rings::inbox()))
        })?;
        // Its proposals may be in queues of other names.
        crate::file::bell::ring_all(&self.db.real_path()?);
        Ok(withdrawn)
    }

    /// A new token for the sidecars of a running bottle. Only its hash is kept, so it cannot be had again.
    pub fn issue_token(&self, slug: &str) -> Result<String> {
        const ISSUE_SQL: &str = "INSERT INTO bottle_tokens (token_sha256, bottle_slug, created_at)
             SELECT :sha256, slug, :now FROM bottles WHERE slug = :slug AND stopped_at IS NULL";
        let mut random = [0; 32];
        getrandom::fill(&mut random)
            .map_err(|error| Error::unavailable(Path::new("the system's source of random numbers"), error))?;
        let token = URL_SAFE_NO_PAD.encode(random);
        let issued = self.db.write(|tx| {
            let params = named_params! {":sha256": sha256_hex(&token), ":slug": slug, ":now": clock::now()};
            Ok((tx.prepare_cached(ISSUE_SQL)?.execute(params)?, Rings::NONE))
        })?;
        if issued == 0 { Err(Error::not_found("running bottle", slug)) } else { Ok(token) }
    }

    /// The bottle whose token this is, while it runs. It is looked up by its hash: how long that takes tells nothing of
    /// how much of a token was right.
    pub fn check_token(&self, token: &str) -> Result<Option<String>> {
        const CHECK_SQL: &str = "SELECT t.bottle_slug FROM bottle_tokens t JOIN bottles b ON b.slug = t.bottle_slug
             WHERE t.token_sha256 = :sha256 AND t.revoked_at IS NULL AND b.stopped_at IS NULL";
        let slug = self.db.read(|conn| {
            let params = named_params! {":sha256": sha256_hex(token)};
            Ok(conn.prepare_cached(CHECK_SQL)?.query_row(params, |row| row.get(0)).optional()?)
        })?;
        Ok(slug.flatten())
    }

    /// Bottles by slug.
    pub fn list_bottles(&self, running: bool) -> Result<Vec<Bottle>> {
        let bottles = self.db.read(|conn| {
            let mut statement =
                conn.prepare_cached(&select("WHERE NOT :running OR b.stopped_at IS NULL ORDER BY b.slug"))?;
            let rows = statement.query_map(named_params! {":running": running, ":now": clock::now()}, from_row)?;
            rows.map(|bottle| with_files(conn, bottle?)).collect()
        })?;
        Ok(bottles.unwrap_or_default())
    }

    /// One bottle.
    pub fn read_bottle(&self, slug: &str) -> Result<Option<Bottle>> {
        let bottle = self.db.read(|conn| {
            let mut statement = conn.prepare_cached(&select("WHERE b.slug = :slug"))?;
            let params = named_params! {":slug": slug, ":now": clock::now()};
            let bottle = statement.query_row(params, from_row).optional()?;
            bottle.map(|bottle| with_files(conn, bottle)).transpose()
        })?;
        Ok(bottle.flatten())
    }
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
        bottles.register("dev", "docker", &[]).unwrap();
        let token = bottles.issue_token("dev").unwrap();
        assert_eq!(token.len(), 43);
        assert_ne!(token, bottles.issue_token("dev").unwrap());
        assert_eq!(bottles.check_token(&token).unwrap().as_deref(), Some("dev"));
        assert_eq!(bottles.check_token(&sha256_hex(&token)).unwrap(), None);
        bottles.stop("dev", "done").unwrap();
        assert_eq!(bottles.check_token(&token).unwrap(), None);
        assert_eq!(bottles.issue_token("dev").unwrap_err().exit_code(), 4);
        bottles.register("dev", "docker", &[]).unwrap();
        assert_eq!(bottles.check_token(&token).unwrap(), None);
    }
}
