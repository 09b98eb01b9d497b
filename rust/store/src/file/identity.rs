//! Which file is at a path?

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Device and inode: which file it is, whatever its name.
pub(crate) type FileId = (u64, u64);

pub(crate) fn file_id(path: &Path) -> Option<FileId> {
    look(path).map(|(id, _)| id)
}

/// Which file it is, and how long.
pub(crate) fn look(path: &Path) -> Option<(FileId, u64)> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{AtFlags, CWD, StatxFlags, makedev, statx};
        use rustix::io::Errno;
        // For nothing about its times: Linux (6.13 on) gives a file whose times were looked at a new time with its next
        // write, which every sync of the WAL would then have to write too, a third more for each commit.
        match statx(CWD, path, AtFlags::empty(), StatxFlags::INO | StatxFlags::SIZE) {
            Ok(found) => {
                let device = makedev(found.stx_dev_major, found.stx_dev_minor);
                return Some(((device, found.stx_ino), found.stx_size));
            }
            Err(Errno::NOSYS | Errno::PERM) => {} // an old kernel, or a sandbox that does not know the call
            Err(_) => return None,
        }
    }
    fs::metadata(path).ok().map(|data| ((data.dev(), data.ino()), data.len()))
}
