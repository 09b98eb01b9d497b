//! How does the file get to this release's schema, and back?
//!
//! Per module an ordered list of up/down pairs. `schema_versions` says how far each module is, so modules that share the
//! file never clobber each other, and down to which version programs may go on using it: a step that only adds leaves
//! the programs of the release before it at work. `schema_steps` keeps the checksum of each applied step, so an edit
//! after release is noticed. The version is read inside the write transaction, and each step commits with its version.

use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, named_params};

use crate::clock;
use crate::diff::sha256_hex;
use crate::error::{Error, Result};

/// One step of a module: how to reach its version, and how to go back.
#[derive(Debug, Clone)]
pub struct Step {
    /// SQL that brings the module to this version.
    pub up: String,
    /// SQL that takes it back.
    pub down: String,
}

/// A named list of steps; its length is its version.
pub(crate) struct Module {
    pub name: &'static str,
    /// The oldest version whose programs may go on using a file that this release brought up to date. Raise it to the
    /// module's new version with a step that takes something away or changes what a row means; a step that only adds
    /// (a table, an index, a column that may be NULL or has a default) leaves it alone.
    compat: i64,
    steps: &'static [(&'static str, &'static str)],
}

macro_rules! step {
    ($path:literal) => {
        (
            include_str!(concat!("../../../../migrations/", $path, ".up.sql")),
            include_str!(concat!("../../../../migrations/", $path, ".down.sql")),
        )
    };
}

/// The modules of this release.
pub(crate) const MODULES: [Module; 4] = [
    Module { name: "queue_store", compat: 1, steps: &[step!("queue_store/0001_queue")] },
    Module { name: "audit_store", compat: 1, steps: &[step!("audit_store/0001_audit")] },
    Module { name: "bottle_store", compat: 1, steps: &[step!("bottle_store/0001_bottles")] },
    Module { name: "grant_store", compat: 1, steps: &[step!("grant_store/0001_grants")] },
];

impl Module {
    pub(crate) fn version(&self) -> i64 {
        self.steps.len() as i64
    }

    fn owned(&self) -> Vec<Step> {
        self.steps.iter().map(|(up, down)| Step { up: (*up).to_owned(), down: (*down).to_owned() }).collect()
    }
}

const BOOKS_SQL: &str = "
CREATE TABLE IF NOT EXISTS schema_versions (
  module     TEXT NOT NULL PRIMARY KEY,
  version    INTEGER NOT NULL CONSTRAINT version_is_not_negative CHECK (version >= 0),
  compat     INTEGER NOT NULL CONSTRAINT compat_is_reached CHECK (compat >= 0 AND compat <= version),
  updated_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS schema_steps (
  module     TEXT NOT NULL,
  version    INTEGER NOT NULL,
  checksum   TEXT NOT NULL,
  applied_at TEXT NOT NULL,
  PRIMARY KEY (module, version)
) STRICT, WITHOUT ROWID;";

const HAS_BOOKS_SQL: &str = "SELECT count(*) = 2 FROM sqlite_schema WHERE name IN ('schema_versions', 'schema_steps')";

const VERSIONS_SQL: &str = "SELECT module, version, compat FROM schema_versions ORDER BY module";

/// How far a module in the file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub module: String,
    pub version: i64,
    /// The oldest version whose programs may use it.
    pub compat: i64,
}

impl Found {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Found { module: row.get("module")?, version: row.get("version")?, compat: row.get("compat")? })
    }

    /// Whether a program that knows the module up to `supported` may use it.
    fn suits(&self, supported: i64) -> Result<()> {
        if self.compat <= supported {
            return Ok(());
        }
        let Found { module, version, compat } = self.clone();
        Err(Error::SchemaTooNew { module, found: version, compat, supported })
    }
}

/// How far each module in the file is; nothing for a file without books.
pub(crate) fn versions(conn: &Connection) -> Result<Vec<Found>> {
    if !conn.query_row(HAS_BOOKS_SQL, [], |row| row.get(0))? {
        return Ok(Vec::new());
    }
    let mut statement = conn.prepare_cached(VERSIONS_SQL)?;
    let rows = statement.query_map([], Found::from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// An error if a module is further than this release may use.
pub(crate) fn refuse_newer(found: &[Found]) -> Result<()> {
    for found in found {
        if let Some(known) = MODULES.iter().find(|known| known.name == found.module) {
            found.suits(known.version())?;
        }
    }
    Ok(())
}

/// Whether every module is as far as this release needs.
pub(crate) fn are_complete(found: &[Found]) -> bool {
    let current =
        |module: &Module| found.iter().any(|found| found.module == module.name && found.version >= module.version());
    MODULES.iter().all(current)
}

/// Moves with every change of the schema, whoever makes it (sqlite.org/pragma.html#pragma_schema_version).
pub(crate) fn schema_version(conn: &Connection) -> Result<i64> {
    Ok(conn.prepare_cached("PRAGMA schema_version")?.query_row([], |row| row.get(0))?)
}

/// Brings all modules of this release up to date. One that is there already costs a read.
pub(crate) fn migrate_all(conn: &Connection) -> Result<()> {
    for module in &MODULES {
        migrate(conn, module.name, &module.owned(), module.compat, &AtomicBool::new(false))?;
    }
    Ok(())
}

/// The steps that were applied, in order, where this release's modules are at these versions.
pub(crate) fn applied(version: impl Fn(&Module) -> i64, books: bool) -> impl Iterator<Item = &'static str> {
    let steps = MODULES.iter().flat_map(move |module| {
        module.steps.iter().take(usize::try_from(version(module)).unwrap_or(0)).map(|(up, _)| *up)
    });
    books.then_some(BOOKS_SQL).into_iter().chain(steps)
}

/// Brings one module to the version its steps make, or leaves it at a later one that suits; returns the version it is at.
/// Programs that know it up to `compat` may go on using it. `running` is true while SQL of a step runs.
pub(crate) fn migrate(
    conn: &Connection,
    module: &str,
    steps: &[Step],
    compat: i64,
    running: &AtomicBool,
) -> Result<i64> {
    let target = steps.len() as i64;
    // Without a write lock first, as nearly every open finds nothing to do. What decides is read inside again.
    if conn.query_row(HAS_BOOKS_SQL, [], |row| row.get(0))? {
        let found = examine(conn, module, steps)?;
        if found.version >= target {
            return Ok(found.version);
        }
    }
    loop {
        let tx = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
        tx.execute_batch(BOOKS_SQL)?;
        let Found { version, .. } = examine(&tx, module, steps)?;
        if version >= target {
            tx.commit()?;
            return Ok(version);
        }
        let step = &steps[version as usize];
        running.store(true, Ordering::Relaxed);
        let applied = apply(&tx, module, version + 1, &step.up);
        running.store(false, Ordering::Relaxed);
        applied?;
        keep_books(&tx, module, version + 1, compat, Some(&checksum(step)))?;
        tx.commit()?;
    }
}

/// Takes one module back to version `to`, in the caller's transaction; returns the version it comes from.
pub(crate) fn rollback(tx: &Connection, module: &str, to: i64) -> Result<i64> {
    let known = MODULES.iter().find(|known| known.name == module).ok_or_else(|| Error::not_found("module", module))?;
    let steps = known.owned();
    let found = examine(tx, module, &steps)?;
    if found.version > known.version() {
        // Only the release that made the step knows the way back, however well the file suits this one.
        let Found { module, version, compat } = found;
        return Err(Error::SchemaTooNew { module, found: version, compat, supported: known.version() });
    }
    if !(0..=found.version).contains(&to) {
        let reason = format!("must be from 0 to {}, the version {module} is at, not {to}", found.version);
        return Err(Error::input("--to", reason));
    }
    for version in (to + 1..=found.version).rev() {
        apply(tx, module, version, &steps[version as usize - 1].down)?;
        keep_books(tx, module, version - 1, found.compat, None)?;
    }
    Ok(found.version)
}

/// How far the module is, after a look at whether its steps are the ones that were applied.
fn examine(conn: &Connection, module: &str, steps: &[Step]) -> Result<Found> {
    let found = conn
        .prepare_cached("SELECT module, version, compat FROM schema_versions WHERE module = ?1")?
        .query_row([module], Found::from_row)
        .optional()?
        .unwrap_or_else(|| Found { module: module.to_owned(), version: 0, compat: 0 });
    if found.version < 0 {
        let reason = format!("{module} is at version {}", found.version);
        return Err(Error::Corrupt { path: String::new(), reason });
    }
    found.suits(steps.len() as i64)?;
    let mut applied = conn.prepare_cached("SELECT version, checksum FROM schema_steps WHERE module = ?1")?;
    let mut rows = applied.query([module])?;
    while let Some(row) = rows.next()? {
        let (version, sum): (i64, String) = (row.get(0)?, row.get(1)?);
        if usize::try_from(version - 1).ok().and_then(|at| steps.get(at)).is_some_and(|step| checksum(step) != sum) {
            return Err(Error::MigrationEdited { module: module.to_owned(), version });
        }
    }
    Ok(found)
}

fn checksum(step: &Step) -> String {
    sha256_hex(format!("{}\0{}", step.up, step.down))
}

fn apply(tx: &Connection, module: &str, version: i64, sql: &str) -> Result<()> {
    tx.execute_batch(sql).map_err(|error| match Error::from(error) {
        // The step itself is at fault; a busy or full disk says so as anywhere else.
        Error::Unavailable { reason, .. } => Error::MigrationFailed { module: module.to_owned(), version, reason },
        other => other,
    })?;
    if tx.is_autocommit() {
        let reason = "it ended the transaction it runs in".to_owned();
        return Err(Error::MigrationFailed { module: module.to_owned(), version, reason });
    }
    Ok(())
}

/// Records that `module` is at `version` now, and the checksum of a step that was applied. What programs of an older
/// version may do is nothing they have to be told at a version they know: `compat` is never ahead of `version`.
fn keep_books(tx: &Connection, module: &str, version: i64, compat: i64, checksum: Option<&str>) -> Result<()> {
    let now = clock::now();
    tx.execute(
        "INSERT INTO schema_versions (module, version, compat, updated_at) VALUES (:module, :version, :compat, :now)
         ON CONFLICT (module) DO UPDATE SET version = excluded.version, compat = excluded.compat,
             updated_at = excluded.updated_at",
        named_params! {":module": module, ":version": version, ":compat": compat.clamp(0, version), ":now": now},
    )?;
    tx.execute(
        "DELETE FROM schema_steps WHERE module = :module AND version > :version",
        named_params! {":module": module, ":version": version},
    )?;
    if let Some(checksum) = checksum {
        tx.execute(
            "INSERT OR REPLACE INTO schema_steps (module, version, checksum, applied_at) VALUES (:module, :version, :checksum, :now)",
            named_params! {":module": module, ":version": version, ":checksum": checksum, ":now": now},
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(up: &str, down: &str) -> Step {
        Step { up: up.to_owned(), down: down.to_owned() }
    }

    #[test]
    fn every_step_down_undoes_its_step_up() {
        let conn = Connection::open_in_memory().unwrap();
        let tables = |conn: &Connection| -> i64 {
            conn.query_row(
                "SELECT count(*) FROM sqlite_schema WHERE name NOT LIKE 'schema_%' AND name NOT LIKE 'sqlite_%'",
                [],
                |row| row.get(0),
            )
            .unwrap()
        };
        migrate_all(&conn).unwrap();
        assert!(tables(&conn) > 0);
        let tx = Transaction::new_unchecked(&conn, TransactionBehavior::Immediate).unwrap();
        for module in MODULES.iter().rev() {
            assert_eq!(rollback(&tx, module.name, 0).unwrap(), module.version());
        }
        tx.commit().unwrap();
        assert_eq!(tables(&conn), 0);
        migrate_all(&conn).unwrap();
    }

    #[test]
    fn a_failed_step_leaves_the_one_before_it() {
        let conn = Connection::open_in_memory().unwrap();
        let steps = [
            step("CREATE TABLE a (x)", "DROP TABLE a"),
            step("CREATE TABLE b (x); CREATE TABLE a (x)", "DROP TABLE b"),
        ];
        let error = to(&conn, &steps, 2).unwrap_err();
        assert!(matches!(error, Error::MigrationFailed { version: 2, .. }), "{error}");
        assert_eq!(versions(&conn).unwrap(), [Found { module: "mine".to_owned(), version: 1, compat: 1 }]);
        assert!(conn.prepare("SELECT * FROM b").is_err());
    }

    #[test]
    fn a_step_that_commits_is_refused() {
        let conn = Connection::open_in_memory().unwrap();
        let error = to(&conn, &[step("CREATE TABLE a (x); COMMIT", "")], 1).unwrap_err();
        assert!(matches!(error, Error::MigrationFailed { .. }), "{error}");
    }

    #[test]
    fn an_edited_step_and_a_newer_file_are_refused() {
        let conn = Connection::open_in_memory().unwrap();
        let steps = [
            step("CREATE TABLE a (x)", "DROP TABLE a"),
            step("ALTER TABLE a RENAME TO b", "ALTER TABLE b RENAME TO a"),
        ];
        to(&conn, &steps, 2).unwrap();
        let newer = to(&conn, &steps[..1], 1).unwrap_err();
        assert_eq!(newer, Error::SchemaTooNew { module: "mine".to_owned(), found: 2, compat: 2, supported: 1 });
        assert!(newer.to_string().contains("version 2") && newer.to_string().contains("knows 1"), "{newer}");
        let edited = to(&conn, &[step("CREATE TABLE a (y)", ""), step("", "")], 2).unwrap_err();
        assert_eq!(edited, Error::MigrationEdited { module: "mine".to_owned(), version: 1 });
    }

    #[test]
    fn a_step_that_only_adds_leaves_older_programs_at_work_and_one_that_breaks_does_not() {
        let conn = Connection::open_in_memory().unwrap();
        let steps = [
            step("CREATE TABLE a (x)", "DROP TABLE a"),
            step("ALTER TABLE a ADD COLUMN y", "ALTER TABLE a DROP COLUMN y"),
            step("ALTER TABLE a DROP COLUMN x", "ALTER TABLE a ADD COLUMN x"),
        ];
        assert_eq!(to(&conn, &steps[..2], 1).unwrap(), 2);
        assert_eq!(to(&conn, &steps[..1], 1).unwrap(), 2, "an older program was refused");
        assert_eq!(to(&conn, &steps, 3).unwrap(), 3);
        for older in [1, 2] {
            let refused = to(&conn, &steps[..older], 1).unwrap_err();
            let supported = older as i64;
            assert_eq!(refused, Error::SchemaTooNew { module: "mine".to_owned(), found: 3, compat: 3, supported });
        }
    }

    #[test]
    fn the_way_back_is_known_to_the_release_that_went_it() {
        let conn = Connection::open_in_memory().unwrap();
        migrate_all(&conn).unwrap();
        conn.execute_batch("UPDATE schema_versions SET version = 2 WHERE module = 'grant_store'").unwrap();
        let refused = rollback(&conn, "grant_store", 0).unwrap_err();
        let known = Error::SchemaTooNew { module: "grant_store".to_owned(), found: 2, compat: 1, supported: 1 };
        assert_eq!(refused, known);
        migrate_all(&conn).unwrap();
    }

    fn to(conn: &Connection, steps: &[Step], compat: i64) -> Result<i64> {
        migrate(conn, "mine", steps, compat, &AtomicBool::new(false))
    }
}
