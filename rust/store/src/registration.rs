//! What may a bottle's rows lead to on this host, and did this host sign that?
//!
//! A row of the shared file can be anybody's. A path, a bottle's name that becomes part of one, and a token count only if
//! the host's signature fits all of the bottle's rows, and if they are not older ones put back: the number of the newest
//! registration is kept beside the keys, which no sidecar sees.

use rusqlite::{Connection, OptionalExtension, Row, named_params};

use crate::audit::entry as audit;
use crate::error::{Error, Result};
use crate::file::bell::Rings;
use crate::file::column::get;
use crate::file::database::Database;
use crate::file::numbers;
use crate::file::transaction::Transaction;
use crate::rules::{MAX_NOTES_BYTES, check_name};
use crate::state::Surface;
use crate::statement::{Keys, RegistrationStatement, Signature, Signer};

/// A bottle's rows, whoever wrote them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Registration {
    pub(crate) slug: String,
    pub(crate) backend: String,
    pub(crate) transport: String,
    pub(crate) generation: i64,
    pub(crate) started_at: String,
    pub(crate) stopped_at: Option<String>,
    /// Tool and absolute path, by tool.
    pub(crate) files: Vec<(String, String)>,
    /// SHA-256 of the tokens that are valid, in text order.
    pub(crate) tokens: Vec<String>,
    pub(crate) signature: Signature,
}

impl Registration {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Registration {
            slug: get(row, "slug")?,
            backend: get(row, "backend")?,
            transport: get(row, "transport")?,
            generation: get(row, "generation")?,
            started_at: get(row, "started_at")?,
            stopped_at: get(row, "stopped_at")?,
            files: Vec::new(),
            tokens: Vec::new(),
            signature: Signature { key_id: get(row, "key_id")?, signature: get(row, "signature")? },
        })
    }

    /// As the rows say; for what it may lead to see [`Registration::verify`].
    pub(crate) fn read(conn: &Connection, slug: &str) -> Result<Option<Self>> {
        const READ_SQL: &str = "SELECT slug, backend, transport, generation, started_at, stopped_at, key_id, signature
             FROM bottles WHERE slug = :slug";
        const FILES_SQL: &str = "SELECT tool, path FROM managed_files WHERE bottle_slug = :slug ORDER BY tool";
        const TOKENS_SQL: &str = "SELECT token_sha256 FROM bottle_tokens
             WHERE bottle_slug = :slug AND revoked_at IS NULL ORDER BY token_sha256";
        let slug = named_params! {":slug": slug};
        let found = conn.prepare_cached(READ_SQL)?.query_row(slug, Self::from_row).optional()?;
        let Some(mut found) = found else { return Ok(None) };
        found.files = conn
            .prepare_cached(FILES_SQL)?
            .query_map(slug, |row| Ok((get(row, "tool")?, get(row, "path")?)))?
            .collect::<rusqlite::Result<_>>()?;
        found.tokens = conn
            .prepare_cached(TOKENS_SQL)?
            .query_map(slug, |row| get(row, "token_sha256"))?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Some(found))
    }

    /// The one that counts: signed here, and the newest. An error says why it does not.
    pub(crate) fn read_verified(conn: &Connection, keys: &Keys, slug: &str) -> Result<Option<Self>> {
        match Self::read(conn, slug)? {
            Some(found) => found.verify(keys).map(|()| Some(found)),
            None => Ok(None),
        }
    }

    /// Whether this host signed it, and nothing newer for the same bottle.
    pub(crate) fn verify(&self, keys: &Keys) -> Result<()> {
        check_name("bottle_slug", &self.slug).map_err(|error| Error::Unverified {
            what: "a bottle's registration".to_owned(),
            reason: error.to_string(),
        })?;
        self.with_statement(|statement| keys.keyring()?.verify(statement, &self.signature).map(drop))?;
        if self.generation < keys.newest_generation(&self.slug)? {
            return Err(Error::Unverified {
                what: format!("the registration of bottle {}", self.slug),
                reason: "it is an older one that was put back; `bottle start` makes it anew".to_owned(),
            });
        }
        Ok(())
    }

    /// The managed file of a tool.
    pub(crate) fn path_of(&self, tool: &str) -> Option<&str> {
        self.files.iter().find(|(declared, _)| declared == tool).map(|(_, path)| path.as_str())
    }

    /// Writes the bottle's own row, signed as the next of its registrations. Its files and tokens are in their tables
    /// already, or will be in this transaction; what is signed is what the host meant, whatever else is there.
    pub(crate) fn write(&mut self, tx: &Transaction<'_>, keys: &Keys, signer: &Signer) -> Result<()> {
        const WRITE_SQL: &str =
            "INSERT INTO bottles (slug, backend, transport, generation, started_at, stopped_at, key_id, signature)
             VALUES (:slug, :backend, :transport, :generation, :started_at, :stopped_at, :key_id, :signature)
             ON CONFLICT (slug) DO UPDATE SET backend = excluded.backend, transport = excluded.transport,
                 generation = excluded.generation, started_at = excluded.started_at, stopped_at = excluded.stopped_at,
                 key_id = excluded.key_id, signature = excluded.signature";
        // What somebody else wrote there moves it on, but never to the end of the numbers.
        self.generation = self.generation.clamp(0, numbers::END).max(keys.newest_generation(&self.slug)?) + 1;
        self.files.sort();
        self.tokens.sort();
        self.signature = self.with_statement(|statement| Ok(signer.sign(statement)))?;
        tx.prepare_cached(WRITE_SQL)?.execute(named_params! {
            ":slug": self.slug,
            ":backend": self.backend,
            ":transport": self.transport,
            ":generation": self.generation,
            ":started_at": self.started_at,
            ":stopped_at": self.stopped_at,
            ":key_id": self.signature.key_id,
            ":signature": self.signature.signature,
        })?;
        Ok(())
    }

    fn with_statement<T>(&self, work: impl FnOnce(&RegistrationStatement<'_>) -> Result<T>) -> Result<T> {
        let files: Vec<_> = self.files.iter().map(|(tool, path)| (tool.as_str(), path.as_str())).collect();
        let tokens: Vec<_> = self.tokens.iter().map(String::as_str).collect();
        work(&RegistrationStatement {
            slug: &self.slug,
            backend: &self.backend,
            transport: &self.transport,
            generation: self.generation,
            started_at: &self.started_at,
            stopped_at: self.stopped_at.as_deref(),
            files: &files,
            tokens: &tokens,
        })
    }
}

/// What is wrong with the registrations that are there, in sentences.
pub(crate) fn damaged(conn: &Connection, keys: &Keys) -> Result<Vec<(String, String)>> {
    let slugs: Vec<String> = conn
        .prepare_cached("SELECT slug FROM bottles ORDER BY slug")?
        .query_map([], |row| get(row, 0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut damaged = Vec::new();
    for slug in slugs {
        if let Err(error) = Registration::read_verified(conn, keys, &slug) {
            let reason = error.damage().ok_or(error)?;
            damaged.push((slug, reason));
        }
    }
    Ok(damaged)
}

/// What the audit log calls a row that was not taken.
const DAMAGED: &str = "damaged";

/// Leaves it in the audit log that something of a bottle's was not taken, once for each reason.
pub(crate) fn record_damage(db: &Database, slug: &str, reason: &str) -> Result<()> {
    let (slug, reason) = presentable(slug, reason);
    if db.read(|conn| is_noted(conn, &slug, &reason))? == Some(true) {
        return Ok(());
    }
    db.write(|tx| note_damage(tx, &slug, &reason).map(|()| ((), Rings::NONE)))
}

/// The same, in a transaction that is under way.
pub(crate) fn note_damage(tx: &Transaction<'_>, slug: &str, reason: &str) -> Result<()> {
    let (slug, reason) = presentable(slug, reason);
    if is_noted(tx, &slug, &reason)? {
        return Ok(());
    }
    audit::note(tx, &slug, "host", DAMAGED, &reason, "bot-bottle", Surface::Policy)
}

fn is_noted(conn: &Connection, slug: &str, reason: &str) -> Result<bool> {
    const NOTED_SQL: &str =
        "SELECT EXISTS (SELECT 1 FROM audit_entries WHERE bottle_slug = :slug AND component = 'host'
         AND operator_action = :action AND operator_notes = :notes)";
    let asked = named_params! {":slug": slug, ":action": DAMAGED, ":notes": reason};
    Ok(conn.prepare_cached(NOTED_SQL)?.query_row(asked, |row| get(row, 0))?)
}

/// A slug and words that keep the log's rules, of ones that may break any.
fn presentable(slug: &str, reason: &str) -> (String, String) {
    let slug = if check_name("bottle_slug", slug).is_ok() { slug } else { "unknown" };
    let mut reason = reason.replace('\0', "\u{2400}");
    let end = (0..=MAX_NOTES_BYTES.min(reason.len())).rev().find(|end| reason.is_char_boundary(*end));
    reason.truncate(end.unwrap_or(0));
    (slug.to_owned(), reason)
}
