//! Where on a host does the database live, and how is that place made?
//!
//! The file is `<root>/db/bot-bottle.db`, in a directory that holds nothing but the database's own files, because that
//! directory is what sidecars mount. `<root>/bot-bottle.db`, the path everybody knows, is a symlink to it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, OFlags, fchmod, fchown};

use crate::error::{Error, Reason, Result};
use crate::file::identity::{FileId, file_id};

/// Where a sidecar finds the host's database.
pub const DB_PATH_IN_CONTAINER: &str = "/run/supervise/bot-bottle.db";

const FILE_NAME: &str = "bot-bottle.db";

/// `$BOT_BOTTLE_ROOT`, or `~/.bot-bottle`.
pub fn bot_bottle_root() -> Result<PathBuf> {
    if let Some(root) = std::env::var_os("BOT_BOTTLE_ROOT").filter(|root| !root.is_empty()) {
        let root = PathBuf::from(root);
        if !root.is_absolute() {
            return Err(Error::input("BOT_BOTTLE_ROOT", format!("must be an absolute path, not {}", root.display())));
        }
        return Ok(root);
    }
    match std::env::home_dir().filter(|home| home.is_absolute()) {
        Some(home) => Ok(home.join(".bot-bottle")),
        None => Err(Error::input("HOME", "is not set to an absolute path; set it, or BOT_BOTTLE_ROOT")),
    }
}

/// The only database on a host.
pub fn host_db_path() -> Result<PathBuf> {
    Ok(bot_bottle_root()?.join(FILE_NAME))
}

/// The keys of the host that a database belongs to. The file of a host is `<root>/db/bot-bottle.db`; one elsewhere, as a
/// test makes it, has keys of its own beside it.
pub(crate) fn keys_dir(path: &Path, on_host: bool) -> PathBuf {
    let root = if on_host { path.parent() } else { root_of(path) };
    if let Some(root) = root {
        return root.join("keys");
    }
    // Also where the file is still to be made.
    let to_be = || Some(fs::canonicalize(path.parent()?).ok()?.join(path.file_name()?));
    let real = fs::canonicalize(path).ok().or_else(to_be).unwrap_or_else(|| path.to_owned());
    match root_of(&real) {
        Some(root) => root.join("keys"),
        None => {
            let mut dir = real.into_os_string();
            dir.push("-keys");
            PathBuf::from(dir)
        }
    }
}

/// By its name: sidecars can put a link in the file's place, and it must not lead to keys of theirs.
fn root_of(file: &Path) -> Option<&Path> {
    let dir = file.parent().filter(|dir| dir.ends_with("db"))?;
    file.ends_with(FILE_NAME).then(|| dir.parent()).flatten()
}

/// A host's own files beside the mounted directory, such as a bottle's managed ones.
pub(crate) fn bottle_dir(slug: &str) -> Result<PathBuf> {
    Ok(bot_bottle_root()?.join("bottles").join(slug))
}

/// The file behind a database path, with symlinks resolved; `None` while there is none.
///
/// With `create` its place is made first: for the host's own path the directories (0700) and the symlink, otherwise
/// the directory must be there; then the empty file (0600).
pub(crate) fn locate(path: &Path, on_host: bool, create: bool) -> Result<Option<PathBuf>> {
    let real = if on_host { host_file(path, create)? } else { path.to_owned() };
    // Sidecars can write to the host's directory: a link they put there must not lead the host elsewhere, or nowhere.
    if on_host && real.symlink_metadata().is_ok_and(|data| data.is_symlink()) {
        return Err(Error::unavailable(&real, "it is a symlink where a file of the database belongs; remove it"));
    }
    match fs::canonicalize(&real) {
        Ok(file) => return Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound && !create => return Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(Error::unavailable(path, error)),
    }
    let Some((dir, name)) = real.parent().zip(real.file_name()) else {
        return Err(Error::unavailable(path, "it names no file"));
    };
    let dir = fs::canonicalize(dir).map_err(|error| {
        Error::unavailable(path, format!("its directory {} cannot be used: {}", dir.display(), error.words()))
    })?;
    crate::file::mount::check(&dir.join(name))?;
    let file = dir.join(name);
    // With the mode, not chmod afterwards: there is no moment in which others can read it. Exclusive: closing a
    // descriptor on a file that is already in use would drop this process's locks on it.
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(Error::unavailable(path, format!("it cannot be created: {}", error.words()))),
    }
    fs::canonicalize(&file).map(Some).map_err(|error| Error::unavailable(path, error))
}

/// Which file a path is about, whether it is there yet or not: the directory nearest to it that is there, and the way on.
pub(crate) fn place(path: &Path, on_host: bool) -> Option<(FileId, PathBuf)> {
    let mut real = if on_host { real_host_file(path) } else { path.to_owned() };
    // `canonicalize` knows no links that lead to nothing yet. Of more there may be a circle.
    for _ in 0..8 {
        let Ok(target) = fs::read_link(&real) else { break };
        real = real.parent()?.join(target);
    }
    if !on_host && host_db_path().is_ok_and(|link| link == real) {
        real = real_host_file(&real); // its link is still to be made
    }
    real.ancestors().skip(1).find_map(|dir| Some((file_id(dir)?, real.strip_prefix(dir).ok()?.to_owned())))
}

/// Where the file of a host is, whose link is at `path`.
pub(crate) fn real_host_file(path: &Path) -> PathBuf {
    path.with_file_name("db").join(FILE_NAME)
}

/// Opens one of the small files beside the database, made (0600) where it is missing. Whoever shares the database as a
/// group shares them too, as SQLite does it with its own.
pub(crate) fn open_beside(path: &Path, database: &Path) -> std::io::Result<File> {
    let made = wary()?.read(true).write(true).create_new(true).mode(0o600).open(path);
    if let Ok(file) = &made {
        share(file, 0o600, database);
    }
    match made {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => wary()?.read(true).write(true).open(path),
        made => made,
    }
}

/// Makes a directory beside the database (0700), if it is missing; shared likewise.
pub(crate) fn make_dir_beside(dir: &Path, database: &Path) {
    if DirBuilder::new().mode(0o700).create(dir).is_ok()
        && let Ok(dir) = wary().and_then(|mut options| options.read(true).open(dir))
    {
        share(&dir, 0o700, database);
    }
}

/// What is refused is no error: then it is its owner's alone.
fn share(file: &File, mode: u32, database: &Path) {
    let Ok(data) = fs::metadata(database) else { return };
    if data.mode() & 0o060 == 0o060 {
        let _ = fchown(file, None, Some(Gid::from_raw(data.gid())));
        let _ = fchmod(file, Mode::from_raw_mode(mode | mode >> 3));
    }
}

/// Opens one of the database's own files to look at it or sync it.
pub(crate) fn open_to_read(path: &Path) -> std::io::Result<File> {
    wary()?.read(true).open(path)
}

/// Whoever can write to the directory is not trusted with more than that: no symlink is followed out of it, and nobody
/// waits for a FIFO's other end.
fn wary() -> std::io::Result<OpenOptions> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    options.custom_flags(i32::try_from(flags.bits()).map_err(std::io::Error::other)?);
    Ok(options)
}

/// Whoever may write to the host's own directories may put another file, or keys, in the place of ours.
fn refuse_public(dir: &Path) -> Result<()> {
    match fs::metadata(dir) {
        Ok(data) if data.mode() & 0o002 != 0 => {
            let mode = data.mode() & 0o7777;
            Err(Error::unavailable(dir, format!("every user may write to it (mode {mode:04o}); `chmod 700` it")))
        }
        _ => Ok(()), // what cannot be looked at is told when it is used
    }
}

fn host_file(link: &Path, create: bool) -> Result<PathBuf> {
    let unusable = |path: &Path, error: std::io::Error| Error::unavailable(path, error);
    let root = link.parent().unwrap_or(Path::new("/"));
    let dir = root.join("db");
    let file = real_host_file(link);
    if create {
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|error| unusable(&dir, error))?;
    }
    for place in [root, &dir] {
        refuse_public(place)?;
    }
    match fs::read_link(link) {
        Ok(target) if root.join(&target) == file => {}
        Ok(target) => {
            return Err(Error::unavailable(
                link,
                format!("it links to {}, not to db/{FILE_NAME}; remove the link", target.display()),
            ));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if create {
                match symlink(Path::new("db").join(FILE_NAME), link) {
                    Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(unusable(link, error)),
                    _ => {}
                }
            }
        }
        Err(error) if error.kind() == ErrorKind::InvalidInput => {
            return Err(Error::unavailable(
                link,
                format!(
                    "it is a file where the link to db/{FILE_NAME} belongs; move it away, then `bot-bottle db restore` it"
                ),
            ));
        }
        Err(error) => return Err(unusable(link, error)),
    }
    Ok(file)
}
