//! May the database be shared from where it lies? Asked before SQLite touches it, because the ways in which it may not
//! lose data without an error.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Filesystems that do not share memory and POSIX locks with the host's kernel. Every `fuse.*` is one too.
const FOREIGN: [&str; 24] = [
    "virtiofs",
    "9p",
    "nfs",
    "nfs4",
    "cifs",
    "smb",
    "smb2",
    "smb3",
    "smbfs",
    "fuse",
    "fuseblk",
    "ceph",
    "lustre",
    "drvfs",
    "vboxsf",
    "vmhgfs",
    "prl_fs",
    "fakeowner",
    "grpcfuse",
    "osxfs",
    "macfuse",
    "afs",
    "afpfs",
    "webdav",
];

/// Refuses a database file that is a mount point, or lies on a foreign filesystem. `file` is canonical but need not exist.
pub(crate) fn check(file: &Path) -> Result<()> {
    let Some(Mount { point, filesystem }) = find(file) else { return Ok(()) };
    let path = file.display().to_string();
    if point == file {
        Err(Error::FileMount { path, filesystem })
    } else if is_foreign(&filesystem) {
        Err(Error::ForeignFilesystem { path, filesystem })
    } else {
        Ok(())
    }
}

/// Whoever shares the directory can put there what SQLite would wait for (a FIFO's other end), follow or fail on without a
/// reason.
pub(crate) fn refuse_planted(file: &Path) -> Result<()> {
    for suffix in ["", "-journal", "-wal", "-shm"] {
        let mut path = file.as_os_str().to_owned();
        path.push(suffix);
        refuse_unless_file(Path::new(&path))?;
    }
    Ok(())
}

/// One of the database's own files may be missing, and nothing else than a file.
pub(crate) fn refuse_unless_file(path: &Path) -> Result<()> {
    match kind_of(path) {
        None | Some("a file") => Ok(()),
        Some(what) => Err(misplaced(path, what, "a file")),
    }
}

/// What is done without where it cannot be used, turns and bells, but costs order and speed then: each is named.
pub(crate) fn planted_beside(file: &Path) -> Vec<String> {
    let mut turns = file.as_os_str().to_owned();
    turns.push("-turn");
    [(PathBuf::from(turns), "a file"), (file.with_file_name("bells"), "a directory")]
        .iter()
        .filter_map(|(path, belongs)| {
            let what = kind_of(path).filter(|what| what != belongs)?;
            Some(misplaced(path, what, belongs).to_string())
        })
        .collect()
}

fn misplaced(path: &Path, what: &str, belongs: &str) -> Error {
    Error::unavailable(path, format!("it is {what} where {belongs} of the database belongs; remove it"))
}

/// `None` where there is nothing.
fn kind_of(path: &Path) -> Option<&'static str> {
    let kind = path.symlink_metadata().ok()?.file_type();
    Some(match () {
        () if kind.is_file() => "a file",
        () if kind.is_symlink() => "a symlink",
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () => "a device",
    })
}

/// Name of the filesystem that holds `file`, for people.
pub(crate) fn filesystem(file: &Path) -> String {
    find(file).map_or_else(|| "unknown".to_owned(), |mount| mount.filesystem)
}

fn is_foreign(filesystem: &str) -> bool {
    filesystem.starts_with("fuse.") || FOREIGN.contains(&filesystem)
}

#[derive(Debug, PartialEq)]
struct Mount {
    point: PathBuf,
    filesystem: String,
}

/// The kernel's word for which mount it is, as one that lies under another has the longer path and does not count; the
/// longest path where the kernel is too old to say.
#[cfg(target_os = "linux")]
fn find(file: &Path) -> Option<Mount> {
    let table = std::fs::read("/proc/self/mountinfo").ok()?;
    let id = mount_id(file).or_else(|| mount_id(file.parent()?));
    let known = id.and_then(|id| mounts(&table).find(|(found, _)| *found == id)).map(|(_, mount)| mount);
    known.or_else(|| covering(&table, file))
}

/// `None` for a file that is not there, and before Linux 5.8.
#[cfg(target_os = "linux")]
fn mount_id(file: &Path) -> Option<u64> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
    let found = statx(CWD, file, AtFlags::empty(), StatxFlags::MNT_ID).ok()?;
    (found.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(found.stx_mnt_id)
}

/// macOS names the filesystem in `statfs`, which the standard library does not offer; `mount` prints the same table.
#[cfg(not(target_os = "linux"))]
fn find(file: &Path) -> Option<Mount> {
    let output = std::process::Command::new("/sbin/mount").output().ok()?;
    let table: String = String::from_utf8(output.stdout)
        .ok()?
        .lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once(" on ")?;
            let (point, options) = rest.rsplit_once(" (")?;
            let filesystem = options.split([',', ')']).next()?;
            Some(format!("0 0 0:0 / {} rw - {filesystem} none rw\n", point.replace(' ', "\\040")))
        })
        .collect();
    covering(table.as_bytes(), file)
}

/// The mounts of a table and their numbers, in order. Format: proc_pid_mountinfo(5). Paths need not be UTF-8.
fn mounts(mountinfo: &[u8]) -> impl Iterator<Item = (u64, Mount)> {
    mountinfo.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let point = PathBuf::from(OsString::from_vec(unescape(fields.nth(3)?)));
        let filesystem = fields.skip_while(|field| *field != b"-").nth(1)?;
        Some((id, Mount { point, filesystem: String::from_utf8_lossy(filesystem).into_owned() }))
    })
}

/// The longest mount point above `file`, and of two on the same point the later one.
fn covering(mountinfo: &[u8], file: &Path) -> Option<Mount> {
    let covers = mounts(mountinfo).map(|(_, mount)| mount).filter(|mount| file.starts_with(&mount.point));
    covers.max_by_key(|mount| mount.point.as_os_str().len())
}

/// The kernel writes blank, tab, newline and backslash as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut rest = field.iter();
    let mut text = Vec::with_capacity(field.len());
    while let Some(byte) = rest.next() {
        let escaped = match rest.as_slice() {
            [b'0', b'4', b'0', ..] => Some(b' '),
            [b'0', b'1', b'1', ..] => Some(b'\t'),
            [b'0', b'1', b'2', ..] => Some(b'\n'),
            [b'1', b'3', b'4', ..] => Some(b'\\'),
            _ => None,
        };
        match escaped.filter(|_| *byte == b'\\') {
            Some(character) => {
                text.push(character);
                rest.nth(2);
            }
            None => text.push(*byte),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /run rw shared:5 - tmpfs tmpfs rw
31 30 254:0 /home/me/db /run/supervise rw - ext4 /dev/vda rw
32 31 254:0 /home/me/x.db /run/supervise/bot-bottle.db rw - ext4 /dev/vda rw
40 22 0:50 / /mnt/host\\040share rw shared:9 master:1 - fuse.sshfs me@host rw
41 22 0:51 / /mnt/over rw - virtiofs share rw
42 41 254:0 / /mnt/over rw - ext4 /dev/vda rw
";

    fn at(path: &str) -> Option<Mount> {
        covering(TABLE.as_bytes(), Path::new(path))
    }

    #[test]
    fn the_longest_prefix_wins_by_whole_names() {
        assert_eq!(at("/run/supervise/other.db").unwrap().point, Path::new("/run/supervise"));
        assert_eq!(at("/run/supervised/x.db").unwrap().point, Path::new("/run"));
        assert_eq!(at("/home/x.db").unwrap().point, Path::new("/"));
    }

    #[test]
    fn a_file_that_is_a_mount_point_is_found_as_such() {
        assert_eq!(at("/run/supervise/bot-bottle.db").unwrap().point, Path::new("/run/supervise/bot-bottle.db"));
    }

    #[test]
    fn an_escaped_point_is_read_and_fuse_is_foreign() {
        assert!(is_foreign(&at("/mnt/host share/x.db").unwrap().filesystem));
        assert!(!is_foreign("ext4") && !is_foreign("tmpfs") && is_foreign("9p") && is_foreign("fuse"));
    }

    /// By the names that the kernel and macOS give them.
    #[test]
    fn what_shares_no_memory_with_this_kernel_is_foreign() {
        for foreign in [
            "9p",
            "virtiofs",
            "nfs",
            "nfs4",
            "cifs",
            "smb3",
            "smbfs",
            "afpfs",
            "webdav",
            "vboxsf",
            "prl_fs",
            "fakeowner",
            "fuse",
            "fuse.grpcfuse",
            "fuse.sshfs",
            "fuse.vmhgfs-fuse",
            "fuseblk",
            "ceph",
            "osxfs",
            "macfuse",
        ] {
            assert!(is_foreign(foreign), "{foreign}");
        }
        for own in ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "apfs", "hfs", "f2fs", "nfsd", "fusectl"] {
            assert!(!is_foreign(own), "{own}");
        }
    }

    #[test]
    fn paths_that_are_no_text_are_read_too() {
        let table = b"22 1 254:0 / / rw - ext4 x rw\n23 22 0:9 / /mnt/\xff\\134 rw shared:1 - 9p x rw\n";
        let file = PathBuf::from(OsString::from_vec(b"/mnt/\xff\\/x.db".to_vec()));
        assert_eq!(covering(table, &file).unwrap().filesystem, "9p");
    }

    #[test]
    fn the_later_of_two_mounts_on_one_point_counts() {
        assert_eq!(at("/mnt/over/x.db").unwrap().filesystem, "ext4");
    }
}
