//! How is the file taken back: to what a backup has, or to an older schema?
//!
//! Whatever was acknowledged is afterwards in the file or in the copy that was saved first, and the log says so. For that
//! the copy, the log's head, the new content and its audit entry belong to one turn and one transaction: killed anywhere,
//! a process has taken back everything or nothing. What may be left is a copy that nobody asked for.

use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use crate::audit::entry as audit;
use crate::clock;
use crate::error::{Error, Result};
use crate::file::bell;
use crate::file::connection::Opened;
use crate::file::database::Database;
use crate::file::migrations;
use crate::file::transaction::{Transaction, count_write};
use crate::file::turn::Turns;
use crate::file::wal::Syncs;
use crate::patience;
use crate::queue::changes::{self, Change};
use crate::state::Surface;
use crate::stores::maintenance::{ALL_PAGES, copy, copy_pages, create_private, findings, open_read_only, with_suffix};
use crate::user::os_user;

impl Database {
    /// Takes one module back, after a copy of the file whose path is returned.
    pub fn rollback(&self, module: &str, to: i64) -> Result<PathBuf> {
        let _patience = patience::work();
        if !self.real_path()?.exists() {
            return Err(Error::not_found("database", &self.path().display().to_string()));
        }
        let saved = Saved::beside(self)?;
        let opened = self.open_to_write()?;
        opened
            .transact(
                Syncs::InTurn,
                |tx| {
                    let from = migrations::rollback(tx, module, to)?;
                    // Others see the steps once they are committed; so what this reads is what there was before them.
                    saved.fill(&opened.file)?;
                    let notes = format!("{module} from version {from} to {to}; all that was there is in {saved}");
                    if migrations::versions(tx)?.iter().any(|found| found.module == "audit_store" && found.version > 0)
                    {
                        return note(tx, "rolled back", &notes);
                    }
                    // The log itself goes. The copy is where it goes on.
                    let last = Connection::open(&saved.path)?;
                    let tx = Transaction::begin(&last)?;
                    note(&tx, "rolled back", &notes)?;
                    tx.commit()
                },
                |()| (),
            )
            .map_err(|error| error.at(&opened.file))?;
        opened.acknowledge()?;
        Ok(saved.keep())
    }

    /// Replaces the content with a backup's. What was there is saved first; the path of that is returned.
    pub fn restore(&self, source: &Path) -> Result<PathBuf> {
        self.shared()?.refuse_inside_transaction()?;
        let _patience = patience::work();
        let staged = Staged::of(self, source)?;
        let file = match self.shared()?.file()? {
            Some(file) => file,
            None => {
                self.migrate_all()?;
                self.real_path()?
            }
        };
        let saved = Saved::beside(self)?;
        match self.replace_content(&staged, &file, &saved) {
            // The reason to restore: nobody can write to such a file, so the backup can take its place.
            Err(Error::Corrupt { .. }) => self.replace_file(&staged, &file, &saved)?,
            replaced => replaced?,
        }
        count_write();
        bell::ring_all(&file);
        Ok(saved.keep())
    }

    /// In the transaction of SQLite's backup: its first step locks out other writers, its last one commits.
    fn replace_content(&self, staged: &Staged, file: &Path, saved: &Saved) -> Result<()> {
        let at_file = |error: rusqlite::Error| Error::from(error).at(file);
        let _patience = patience::begin();
        self.shared()?.close_outdated()?;
        // Whatever schema or damage it has: all of it is replaced.
        let mut opened = Opened::open_as_it_is(file.to_owned())?;
        let turn = opened.turns.take();
        let _turn = turn.as_ref().map(Turns::take).transpose()?;
        let replacing = Backup::new(&staged.conn, &mut opened.conn).map_err(at_file)?;
        locked(replacing.step(0), file)?;
        saved.fill(file)?;
        let before = {
            let reader = Opened::open_as_it_is(file.to_owned())?;
            Before::of(&reader.conn)
        };
        staged.finish(&before, saved)?;
        locked(replacing.step(ALL_PAGES), file)?;
        drop(replacing);
        opened.acknowledge()
    }

    /// Puts the backup in the place of a file that SQLite does not take for a database.
    fn replace_file(&self, staged: &Staged, file: &Path, saved: &Saved) -> Result<()> {
        let failed = |error: std::io::Error| Error::unavailable(file, error);
        self.shared()?.abandon_all()?;
        staged.finish(&Before { head: "unreadable".to_owned(), newest: None }, saved)?;
        let new = with_suffix(file, "-restored");
        let _ = fs::remove_file(&new); // of one that was killed
        create_private(&new)?;
        copy(&staged.conn, &new).map_err(|error| error.at(&new))?;
        fs::set_permissions(&new, fs::metadata(file).map_err(failed)?.permissions()).map_err(failed)?;
        fs::remove_file(&saved.path).map_err(failed)?; // its name is taken, its content is none
        fs::hard_link(file, &saved.path).map_err(failed)?;
        // Before the file: beside the new one they would be another's.
        for suffix in ["-wal", "-shm"] {
            match fs::rename(with_suffix(file, suffix), with_suffix(&saved.path, suffix)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        fs::rename(&new, file).map_err(failed)?;
        sync_directory(file).map_err(failed)
    }
}

/// Waits are SQLite's own, up to its busy timeout.
fn locked(step: rusqlite::Result<StepResult>, file: &Path) -> Result<()> {
    match step.map_err(|error| Error::from(error).at(file))? {
        StepResult::Busy | StepResult::Locked => Err(Error::impatient(file)),
        _ => Ok(()),
    }
}

fn note(tx: &Transaction<'_>, action: &str, notes: &str) -> Result<()> {
    audit::note(tx, "host", "database", action, notes, &os_user(), Surface::Cli)
}

fn sync_directory(file: &Path) -> std::io::Result<()> {
    File::open(file.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// What the new content has to say of the old one.
struct Before {
    head: String,
    newest: Option<Change>,
}

impl Before {
    /// As far as it can be read.
    fn of(conn: &Connection) -> Self {
        Before {
            head: audit::last(conn).map_or_else(|_| "unreadable".to_owned(), |(_, head)| head),
            newest: changes::newest_change(conn).ok().flatten(),
        }
    }
}

/// A backup, checked and brought to this release's schema, in a file without a name: what is checked is what is
/// restored, whoever can write to the backup, and nothing is left of it however this ends.
struct Staged {
    conn: Connection,
    source: PathBuf,
}

impl Staged {
    fn of(db: &Database, source: &Path) -> Result<Self> {
        let given = fs::metadata(source).ok().filter(fs::Metadata::is_file);
        let Some(given) = given else { return Err(Error::not_found("backup", &source.display().to_string())) };
        let same =
            |file: PathBuf| fs::metadata(file).is_ok_and(|own| (own.dev(), own.ino()) == (given.dev(), given.ino()));
        if db.shared()?.file()?.is_some_and(same) {
            return Err(Error::input("backup", format!("{} is the database itself", source.display())));
        }
        let at_source = |error: Error| error.at(source);
        // A temporary database: SQLite's own, so that it is gone with this process, and never in WAL mode, whatever the
        // backup's header says.
        let mut conn = Connection::open("")?;
        let backup = open_read_only(source)?;
        copy_pages(&Backup::new(&backup, &mut conn)?, source).map_err(at_source)?;
        let versions = migrations::versions(&conn).map_err(at_source)?;
        if versions.is_empty() {
            return Err(Error::input("backup", format!("{} is not a bot-bottle database", source.display())));
        }
        migrations::refuse_newer(&versions)?;
        if let Some(finding) =
            findings(&conn, |conn| audit::verify(conn, None, |_| Ok(()))).map_err(at_source)?.0.into_iter().next()
        {
            return Err(Error::Corrupt { path: source.display().to_string(), reason: finding });
        }
        migrations::migrate_all(&conn).map_err(at_source)?;
        Ok(Staged { conn, source: source.to_owned() })
    }

    /// The last that is written to it: what it replaces.
    fn finish(&self, before: &Before, saved: &Saved) -> Result<()> {
        let tx = Transaction::begin(&self.conn)?;
        let source = self.source.display();
        let notes = format!("from {source}; the log before it had head {} and is in {saved}", before.head);
        note(&tx, "restored", &notes)?;
        if let Some(newest) = &before.newest {
            changes::go_on_from(&tx, newest)?;
        }
        tx.commit()
    }
}

/// Where what was there before is kept; removed again if nothing was replaced.
struct Saved {
    path: PathBuf,
    kept: bool,
}

impl Saved {
    fn beside(db: &Database) -> Result<Self> {
        let path = aside(db)?;
        create_private(&path)?;
        Ok(Saved { path, kept: false })
    }

    /// With all that is committed in the file now, on the disk.
    fn fill(&self, file: &Path) -> Result<()> {
        let reader = Opened::open_as_it_is(file.to_owned())?;
        copy(&reader.conn, &self.path).map_err(|error| error.at(file))?;
        sync_directory(&self.path).map_err(|error| Error::unavailable(&self.path, error))
    }

    fn keep(mut self) -> PathBuf {
        self.kept = true;
        self.path.clone()
    }
}

impl Drop for Saved {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl std::fmt::Display for Saved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.path.display().fmt(f)
    }
}

/// A name of its own in the directory for copies, which no sidecar sees.
fn aside(db: &Database) -> Result<PathBuf> {
    let dir = db.path().parent().unwrap_or(Path::new("/")).join("backups");
    DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|error| Error::unavailable(&dir, error))?;
    Ok(dir.join(format!("bot-bottle-{}.db", clock::now().replace([':', '.'], "-"))))
}
