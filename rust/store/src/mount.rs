//! May the database be shared from where it lies? Asked before SQLite touches it, because the ways in which it may not
//! lose data without an error (FACTS 1 and 2).

use std::path::Path;

use crate::error::{Error, Result};

/// Filesystems that do not share memory and POSIX locks with the host's kernel. Every `fuse.*` is one too.
const FOREIGN: [&str; 16] = [
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
    "vboxsf",
    "prl_fs",
    "fakeowner",
    "grpcfuse",
    "osxfs",
    "afs",
];

/// Refuses a database file that is a mount point, or lies on a foreign filesystem. `file` is canonical but need not exist.
pub(crate) fn check(file: &Path) -> Result<()> {
    let Some(mount) = find(file) else { return Ok(()) };
    let (path, filesystem) = (file.display().to_string(), mount.filesystem);
    if mount.point == path {
        Err(Error::FileMount { path, filesystem })
    } else if is_foreign(&filesystem) {
        Err(Error::ForeignFilesystem { path, filesystem })
    } else {
        Ok(())
    }
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
    point: String,
    filesystem: String,
}

#[cfg(target_os = "linux")]
fn find(file: &Path) -> Option<Mount> {
    covering(&std::fs::read_to_string("/proc/self/mountinfo").ok()?, file.to_str()?)
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
    covering(&table, file.to_str()?)
}

/// The mount that covers `path`: the longest mount point above it, and of two on the same point the later one.
/// Format: proc_pid_mountinfo(5).
fn covering(mountinfo: &str, path: &str) -> Option<Mount> {
    let mut found: Option<Mount> = None;
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let (Some(point), Some(filesystem)) = (left.split(' ').nth(4), right.split(' ').next()) else { continue };
        let point = unescape(point);
        let covers =
            path == point || point == "/" || path.strip_prefix(&point).is_some_and(|rest| rest.starts_with('/'));
        if covers && found.as_ref().is_none_or(|best| point.len() >= best.point.len()) {
            found = Some(Mount { point, filesystem: filesystem.to_owned() });
        }
    }
    found
}

/// The kernel writes blank, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |text, (code, character)| text.replace(code, character))
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
        covering(TABLE, path)
    }

    #[test]
    fn the_longest_prefix_wins_by_whole_names() {
        assert_eq!(at("/run/supervise/other.db").unwrap().point, "/run/supervise");
        assert_eq!(at("/run/supervised/x.db").unwrap().point, "/run");
        assert_eq!(at("/home/x.db").unwrap().point, "/");
    }

    #[test]
    fn a_file_that_is_a_mount_point_is_found_as_such() {
        assert_eq!(at("/run/supervise/bot-bottle.db").unwrap().point, "/run/supervise/bot-bottle.db");
    }

    #[test]
    fn an_escaped_point_is_read_and_fuse_is_foreign() {
        assert!(is_foreign(&at("/mnt/host share/x.db").unwrap().filesystem));
        assert!(!is_foreign("ext4") && !is_foreign("tmpfs") && is_foreign("9p") && is_foreign("fuse"));
    }

    #[test]
    fn the_later_of_two_mounts_on_one_point_counts() {
        assert_eq!(at("/mnt/over/x.db").unwrap().filesystem, "ext4");
    }
}
