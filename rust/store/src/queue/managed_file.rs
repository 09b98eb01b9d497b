//! How does an approved file come into effect, once, whatever crashes?
//!
//! 1. stage: the new content is written and synced beside the file, so that a full disk or a missing permission shows
//!    before anything is decided; 2. the decision commits with the intent to apply; 3. the staged file is renamed over
//!    the old one, unless that changed meanwhile; 4. the intent becomes `applied`, and only then do waiters go on.
//!    A crash after 2 is finished, and one before it cleaned up, by the next opening of the inbox. One lock per database
//!    covers 1 to 4.
//!
//! Recovery writes nothing of its own: it renames what an operator's process staged on this host. Sidecars can write to
//! the database, and an intent they made up must not become a file of their choice.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, named_params};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fchmod, fchown, openat, renameat, statat, unlinkat};
use uuid::Uuid;

use crate::clock;
use crate::diff::{render_diff, sha256_hex};
use crate::error::{Error, Reason, Result};
use crate::file::bell::Rings;
use crate::file::column::get;
use crate::file::database::Database;
use crate::file::lock::Lock;
use crate::file::transaction::Transaction;
use crate::file::{layout, mount};
use crate::patience;
use crate::queue::changes;
use crate::queue::item::{self, InboxItem};
use crate::queue::life;
use crate::registration::{Registration, record_damage};
use crate::rules::MAX_PAYLOAD_BYTES;
use crate::state::{ApplyState, ChangeKind, Stored};
use crate::statement::Keys;

/// Hash of a file that is not there.
const ABSENT: &str = "";

/// The hash of the file as it is; `None` where this process cannot see it (a container).
pub(crate) fn seen(path: &str) -> Option<String> {
    let content = Place::open(Path::new(path)).and_then(|place| place.read()).ok()?;
    Some(hash_of(content.as_deref()))
}

/// A managed file as it is now.
#[derive(Default)]
pub(crate) struct Current {
    pub text: Option<String>,
    /// Empty while it is absent, `None` where it cannot be read.
    pub sha256: Option<String>,
    pub problem: Option<String>,
}

/// Reads it as a decision would: a regular file of a bounded size, never through a symlink, never waiting for a pipe.
pub(crate) fn look(path: &str) -> Current {
    let content = match Place::open(Path::new(path)).and_then(|place| place.read()) {
        Ok(content) => content,
        Err(error) => return Current { problem: Some(error.to_string()), ..Current::default() },
    };
    let sha256 = Some(hash_of(content.as_deref()));
    match content.map(String::from_utf8).transpose() {
        Ok(text) => Current { text, sha256, problem: None },
        Err(error) => {
            let problem = format!("it is not UTF-8 text (byte {})", error.utf8_error().valid_up_to());
            Current { text: None, sha256, problem: Some(problem) }
        }
    }
}

/// From the file as it is to `proposed`, for the record.
pub(crate) fn diff(path: &str, proposed: &str) -> String {
    let current = Place::open(Path::new(path)).and_then(|place| place.read()).unwrap_or_default();
    render_diff(&text(current.as_deref()), proposed, label(path))
}

/// A path as a diff's header has it.
fn label(path: &str) -> &str {
    path.trim_start_matches('/')
}

/// The hash a base is compared with.
pub(crate) fn hash_of(content: Option<&[u8]>) -> String {
    content.map_or_else(|| ABSENT.to_owned(), sha256_hex)
}

fn text(content: Option<&[u8]>) -> String {
    String::from_utf8_lossy(content.unwrap_or_default()).into_owned()
}

/// A file's name in its directory, held open: what was checked is what is written, whatever is renamed meanwhile.
pub(crate) struct Place {
    dir: OwnedFd,
    name: PathBuf,
    path: PathBuf,
}

impl Place {
    /// The directory must be reached without symlinks; the file is a regular one, or absent.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let unusable = |reason: String| Error::input("managed file", format!("{} {reason}", path.display()));
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(unusable("names no file".to_owned()));
        };
        let real = std::fs::canonicalize(parent)
            .map_err(|error| unusable(format!("is in a directory that cannot be used: {}", error.words())))?;
        if real != parent {
            return Err(unusable(format!("is reached through a symlink; its directory is {}", real.display())));
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let dir = openat(rustix::fs::CWD, parent, flags, Mode::empty())
            .map_err(|error| unusable(format!("is in a directory that cannot be opened: {}", error.words())))?;
        let place = Place { dir, name: PathBuf::from(name), path: path.to_owned() };
        match statat(&place.dir, &place.name, AtFlags::SYMLINK_NOFOLLOW)
            .map(|stat| FileType::from_raw_mode(stat.st_mode))
        {
            Ok(FileType::RegularFile) | Err(rustix::io::Errno::NOENT) => Ok(place),
            Ok(FileType::Symlink) => Err(unusable("is a symlink; put the file itself there".to_owned())),
            Ok(_) => Err(unusable("is not a regular file".to_owned())),
            Err(error) => Err(unusable(format!("cannot be looked at: {}", error.words()))),
        }
    }

    /// Its content; `None` while it is absent.
    pub(crate) fn read(&self) -> Result<Option<Vec<u8>>> {
        self.read_file(&self.name)
    }

    fn read_file(&self, name: &Path) -> Result<Option<Vec<u8>>> {
        let failed = |error: std::io::Error| Error::unavailable(&self.path, error);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match openat(&self.dir, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(failed(error.into())),
        };
        let mut content = Vec::new();
        // More than a payload can hold: such a file is not one that proposals replace.
        let limit = 4 * MAX_PAYLOAD_BYTES as u64;
        file.take(limit + 1).read_to_end(&mut content).map_err(failed)?;
        if content.len() as u64 > limit {
            return Err(Error::input("managed file", format!("{} has more than {limit} bytes", self.path.display())));
        }
        Ok(Some(content))
    }

    /// The name under which content for it waits beside it. An id from the database is not taken for one: with slashes
    /// in it the name would be one in another directory.
    fn staged(&self, id: &str) -> Result<PathBuf> {
        let id = Uuid::try_parse(id).map_err(|_| Error::input("managed file", format!("has no proposal {id:?}")))?;
        Ok(PathBuf::from(format!(".{}.{}", self.name.display(), id.hyphenated())))
    }

    /// Writes `text` beside it, synced with its directory, with its owner and mode; returns the name.
    fn stage(&self, text: &str, id: &str) -> Result<PathBuf> {
        let temp = self.staged(id)?;
        let _ = self.discard(&temp); // of an attempt that crashed
        let written = (|| -> std::io::Result<()> {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(openat(&self.dir, &temp, flags, Mode::RUSR | Mode::WUSR)?);
            if let Ok(old) = statat(&self.dir, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
                // Owner before mode: changing the owner clears set-id bits. Refused without privileges, and then the
                // file is ours, as every other file this user writes.
                let _ = fchown(
                    &file,
                    Some(rustix::fs::Uid::from_raw(old.st_uid)),
                    Some(rustix::fs::Gid::from_raw(old.st_gid)),
                );
                let _ = fchmod(&file, Mode::from_raw_mode(old.st_mode));
            }
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            Ok(rustix::fs::fsync(&self.dir)?)
        })();
        match written {
            Ok(()) => Ok(temp),
            Err(error) => {
                let _ = self.discard(&temp);
                Err(Error::unavailable(&self.path, error))
            }
        }
    }

    fn discard(&self, temp: &Path) -> rustix::io::Result<()> {
        unlinkat(&self.dir, temp, AtFlags::empty())
    }

    fn replace(&self, temp: &Path) -> std::io::Result<()> {
        renameat(&self.dir, temp, &self.dir, &self.name)?;
        rustix::fs::fsync(&self.dir)?;
        Ok(())
    }
}

/// New content beside a managed file, under the lock that makes applying one process's business.
pub(crate) struct Staged {
    id: String,
    place: Place,
    temp: PathBuf,
    /// Recovery will need it.
    kept: bool,
    before: Option<Vec<u8>>,
    final_sha256: String,
    expected: String,
    /// What lies staged of others.
    left: Vec<String>,
    applying: Applying,
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.kept {
            let _ = self.place.discard(&self.temp);
            self.is_done();
        }
    }
}

impl Staged {
    /// Step 1, after a look whether the file is still the one the proposal was written against.
    pub(crate) fn prepare(db: &Database, id: &str, path: &str, text: &str, base: Option<&str>) -> Result<Self> {
        let applying = Applying::take(db)?;
        finish_all(db)?; // decided earlier, so in effect earlier
        let left = applying.sweep(db)?;
        let place = Place::open(Path::new(path))?;
        let before = place.read()?;
        let actual = hash_of(before.as_deref());
        let expected = base.unwrap_or(&actual).to_owned();
        if actual != expected {
            return Err(stale(id, path, &expected, &actual));
        }
        applying.note(left.iter().map(String::as_str).chain([id]))?;
        let temp = place.stage(text, id)?;
        let (id, final_sha256) = (id.to_owned(), sha256_hex(text));
        Ok(Staged { id, place, temp, kept: false, before, final_sha256, expected, left, applying })
    }

    /// Nothing of it lies staged any more. A note that stays costs the next inbox a look.
    fn is_done(&self) {
        let _ = self.applying.note(self.left.iter().map(String::as_str));
    }

    /// Leaves it for recovery, where the decision may have been committed all the same.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }

    /// What applying it changes.
    pub(crate) fn diff(&self, after: &str) -> String {
        render_diff(&text(self.before.as_deref()), after, label(&self.place.path.to_string_lossy()))
    }

    /// Step 2, in the decision's transaction.
    pub(crate) fn intend(&self, tx: &Transaction<'_>, seq: i64, now: &str) -> Result<()> {
        const INTEND_SQL: &str = "INSERT INTO applies (proposal_seq, path, expected_sha256, final_sha256, updated_at)
             VALUES (:seq, :path, :expected, :final, :now)";
        tx.prepare_cached(INTEND_SQL)?.execute(named_params! {
            ":seq": seq,
            ":path": self.place.path.to_string_lossy(),
            ":expected": self.expected,
            ":final": self.final_sha256,
            ":now": now,
        })?;
        Ok(())
    }

    /// Steps 3 and 4.
    pub(crate) fn apply(mut self, db: &Database) -> Result<()> {
        self.kept = true;
        let path = self.place.path.display().to_string();
        let failed = |reason: String| Error::ManagedFile { id: self.id.clone(), path: path.clone(), reason };
        let actual = hash_of(self.place.read().map_err(|error| failed(error.to_string()))?.as_deref());
        if actual != self.expected {
            let error = stale(&self.id, &path, &self.expected, &actual);
            settle(db, &self.id, Some(&error.to_string())).map_err(|error| failed(error.to_string()))?;
            self.kept = false;
            return Err(error);
        }
        self.place.replace(&self.temp).map_err(|error| failed(error.to_string()))?;
        // Its own words would say that nothing was written.
        settle(db, &self.id, None)
            .map_err(|error| failed(format!("it is in place, but that could not be noted: {error}")))?;
        self.is_done();
        Ok(())
    }
}

fn stale(id: &str, path: &str, expected: &str, actual: &str) -> Error {
    let known = |hash: &str| (hash != ABSENT).then(|| hash.to_owned());
    Error::StaleFile { id: id.to_owned(), path: path.to_owned(), expected: known(expected), actual: known(actual) }
}

/// Held by whoever decides on a managed file.
pub(crate) struct Applying {
    lock: Lock,
    path: PathBuf,
}

impl Applying {
    /// Waits for whoever else does for as long as the call has patience.
    fn take(db: &Database) -> Result<Self> {
        let (file, path) = lock_file(db)?;
        Ok(Applying { lock: Lock::take(file, &path)?, path })
    }

    /// `None`: another does.
    fn try_take(db: &Database) -> Result<Option<Self>> {
        let (file, path) = lock_file(db)?;
        let taken = Lock::try_take(file).map_err(|error| Error::unavailable(&path, error))?;
        Ok(taken.ok().map(|lock| Applying { lock, path }))
    }

    /// Notes of which proposals content may lie staged, for whoever comes after a decider that was killed.
    fn note<'a>(&self, ids: impl Iterator<Item = &'a str>) -> Result<()> {
        let text: String = ids.map(|id| format!("{id}\n")).collect();
        let written = self.lock.file().set_len(0).and_then(|()| self.lock.file().write_all_at(text.as_bytes(), 0));
        written.map_err(|error| Error::unavailable(&self.path, error))
    }

    /// Discards what killed deciders left staged for no decision; returns of which proposals content is staged for one.
    /// Anybody may have written the notes: all that can come of one is that what lies beside a file of ours, named after a
    /// proposal of its bottle, is discarded.
    fn sweep(&self, db: &Database) -> Result<Vec<String>> {
        let mut text = Vec::new();
        let read = self.lock.file().take(MOST_NOTED).read_to_end(&mut text);
        if read.is_err() || text.is_empty() {
            return Ok(Vec::new());
        }
        let noted = String::from_utf8_lossy(&text).lines().map(str::to_owned).collect::<Vec<_>>();
        let mut left = Vec::new();
        for id in noted {
            match settled(db, &id)? {
                Some(item) if is_on_its_way(&item) => left.push(id),
                Some(item) => item.managed_file.iter().for_each(|path| discard(path, &id)),
                None => {}
            }
        }
        self.note(left.iter().map(String::as_str))?;
        Ok(left)
    }
}

/// How much of the notes is read.
const MOST_NOTED: u64 = 1 << 16;

/// With the managed file that this host registered.
fn settled(db: &Database, id: &str) -> Result<Option<InboxItem>> {
    let keys = Keys::of(db);
    Ok(db.read(|conn| item::settle(conn, &keys, item::read(conn, id)?))?.flatten())
}

/// What lies staged for a file; it may be gone, or out of reach.
fn discard(path: &str, id: &str) {
    if let Ok(place) = Place::open(Path::new(path))
        && let Ok(temp) = place.staged(id)
    {
        let _ = place.discard(&temp);
    }
}

fn lock_path(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push("-apply");
    PathBuf::from(path)
}

fn lock_file(db: &Database) -> Result<(File, PathBuf)> {
    let database = db.real_path()?;
    let path = lock_path(&database);
    mount::refuse_unless_file(&path)?;
    let file = layout::open_beside(&path, &database).map_err(|error| Error::unavailable(&path, error))?;
    Ok((file, path))
}

/// Step 4: the intent is `applied`, or `failed` for the reason given. Nothing if another process was first.
fn settle(db: &Database, id: &str, failure: Option<&str>) -> Result<()> {
    const SETTLE_SQL: &str = "UPDATE applies SET state = :state, error = :error, updated_at = :now
         WHERE proposal_seq = :seq AND state = 'intended' RETURNING final_sha256";
    const KNOW_SQL: &str = "UPDATE managed_files SET known_sha256 = :final WHERE bottle_slug = :bottle_slug AND path =
         (SELECT path FROM applies WHERE proposal_seq = :seq)";
    db.write(|tx| {
        let found = life::find(tx, id)?.ok_or_else(|| Error::not_found("proposal", id))?;
        let (state, kind) = match failure {
            None => (ApplyState::Applied, ChangeKind::Applied),
            Some(_) => (ApplyState::Failed, ChangeKind::ApplyFailed),
        };
        let settled: Option<String> = tx
            .prepare_cached(SETTLE_SQL)?
            .query_row(
                named_params! {":seq": found.seq, ":state": state, ":error": failure, ":now": clock::now()},
                |row| get(row, 0),
            )
            .optional()?;
        let Some(final_sha256) = settled else { return Ok(((), Rings::NONE)) };
        if failure.is_none() {
            tx.prepare_cached(KNOW_SQL)?.execute(
                named_params! {":final": final_sha256, ":bottle_slug": found.bottle_slug, ":seq": found.seq},
            )?;
        }
        changes::record(tx, kind, &found.id, &found.bottle_slug, &found.tool)?;
        Ok(((), Rings::queue(&found.queue_key)))
    })
}

/// Finishes what a crash between steps 1 and 4 left; how many. A process that is still at it has the lock and is left
/// alone.
pub(crate) fn recover(db: &Database) -> Result<usize> {
    let _patience = patience::begin();
    let noted = std::fs::metadata(lock_path(&db.real_path()?)).is_ok_and(|data| data.len() > 0);
    if !noted && db.read(intended)?.unwrap_or_default().is_empty() {
        return Ok(0);
    }
    let Some(applying) = Applying::try_take(db)? else { return Ok(0) };
    let finished = finish_all(db)?;
    applying.sweep(db)?;
    Ok(finished)
}

/// Why a decision that was put away is not in effect, as its waiter is told.
pub(crate) const PUT_AWAY: &str = "put away before its file was in effect; the file was left as it is";

/// Whether a decision of it is on its way.
pub(crate) fn is_intended(tx: &Transaction<'_>, seq: i64) -> Result<bool> {
    const IS_INTENDED_SQL: &str =
        "SELECT EXISTS (SELECT 1 FROM applies WHERE proposal_seq = :seq AND state = 'intended')";
    Ok(tx.prepare_cached(IS_INTENDED_SQL)?.query_row(named_params! {":seq": seq}, |row| get(row, 0))?)
}

fn is_on_its_way(item: &InboxItem) -> bool {
    item.apply_state == Some(Stored::Known(ApplyState::Intended))
}

/// Ends a decision's way to its file, for good: it is in effect by now, or it never will be. Until the lock is dropped no
/// other begins one.
pub(crate) fn call_off(db: &Database, id: &str) -> Result<Applying> {
    let _patience = patience::begin();
    let applying = Applying::take(db)?;
    let Some(item) = settled(db, id)?.filter(is_on_its_way) else {
        return Ok(applying);
    };
    let wanted = item.response.as_ref().and_then(|response| response.final_sha256.as_deref());
    let is_in_place = item.managed_file.as_deref().is_some_and(|path| seen(path).as_deref() == wanted);
    settle(db, &item.proposal.id, (!is_in_place).then_some(PUT_AWAY))?;
    item.managed_file.iter().for_each(|path| discard(path, &item.proposal.id));
    Ok(applying)
}

/// A decision on its way: proposal, path, and the file's hash before and after.
type Intent = (String, String, String, String);

fn intended(conn: &Connection) -> Result<Vec<Intent>> {
    // The second condition is the index's.
    const INTENDED_SQL: &str = "SELECT p.id, m.path, m.expected_sha256, m.final_sha256
         FROM applies m JOIN proposals p ON p.seq = m.proposal_seq
         WHERE m.state = 'intended' AND m.state <> 'applied' ORDER BY m.proposal_seq";
    let mut statement = conn.prepare_cached(INTENDED_SQL)?;
    let rows = statement.query_map([], |row| {
        Ok((get(row, "id")?, get(row, "path")?, get(row, "expected_sha256")?, get(row, "final_sha256")?))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Under the lock.
fn finish_all(db: &Database) -> Result<usize> {
    let mut finished = 0;
    for (id, path, expected, wanted) in db.read(intended)?.unwrap_or_default() {
        // An error, such as a full disk or a directory that is not mounted: it stays intended, shown to the operator, and
        // is tried again.
        let failure = match refused(db, &id, &path, &wanted)? {
            Some(reason) => Some(reason),
            None => match finish(&path, &id, &expected, &wanted) {
                Ok(failure) => failure,
                Err(_) => continue,
            },
        };
        settle(db, &id, failure.as_deref())?;
        finished += 1;
    }
    Ok(finished)
}

/// Why this host has nothing to do with that path: an intent is a row, which anybody can write.
fn refused(db: &Database, id: &str, path: &str, wanted: &str) -> Result<Option<String>> {
    let keys = Keys::of(db);
    let Some(Some(found)) = db.read(|conn| life::find(conn, id))? else {
        return Ok(Some("its proposal is gone".to_owned()));
    };
    let reason = match db.read(|conn| Registration::read_verified(conn, &keys, &found.bottle_slug)) {
        Ok(registered) => {
            if registered.flatten().is_some_and(|registered| registered.path_of(&found.tool) == Some(path)) {
                let decided: Option<InboxItem> = db.read(|conn| item::read(conn, &found.id))?.flatten();
                let fits =
                    decided.as_ref().and_then(|item| item.response.as_ref()?.final_sha256.as_deref()) == Some(wanted);
                match decided.map(|item| item::decision_damage(&keys, &item)).transpose()?.flatten() {
                    None if fits => return Ok(None),
                    None => "what it would put in place is not what was decided".to_owned(),
                    Some(reason) => reason,
                }
            } else {
                format!("the path of this change is not the one that this host registered for {}", found.tool)
            }
        }
        Err(error) => error.damage().ok_or(error)?,
    };
    record_damage(db, &found.bottle_slug, &format!("proposal {}: {reason}", found.id))?;
    Ok(Some(format!("{reason}; nothing was written")))
}

/// Puts it in place; or why it never will be.
fn finish(path: &str, id: &str, expected: &str, wanted: &str) -> Result<Option<String>> {
    let place = Place::open(Path::new(path))?;
    let temp = place.staged(id)?;
    let actual = hash_of(place.read()?.as_deref());
    let staged = hash_of(place.read_file(&temp)?.as_deref());
    if actual == expected && staged == wanted {
        place.replace(&temp).map_err(|error| Error::unavailable(Path::new(path), error))?;
        return Ok(None);
    }
    let _ = place.discard(&temp);
    if actual == wanted {
        return Ok(None);
    }
    Ok(Some(if actual == expected {
        format!("{path} was left as it is, as the content staged for it is gone; have the change proposed again")
    } else {
        stale(id, path, expected, &actual).to_string()
    }))
}
