//! Which object does a pointer of Git LFS stand for, and is it here to be scanned?
//!
//! git-lfs sends objects before the push that names them. The gate's server keeps them where git-lfs itself does, in the
//! repository's `lfs/objects`, and `lfs/owed` lists those that have not reached the upstream yet.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{Outcome, Refusal};

/// A pointer is shorter (git-lfs, docs/spec.md).
pub const LONGEST: u64 = 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// SHA-256 of the object, 64 hex digits.
    pub oid: String,
    pub size: u64,
}

impl Pointer {
    /// What git-lfs, of whatever version, would take for a pointer.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?.trim();
        let value = |key: &str| text.lines().find_map(|line| line.trim().strip_prefix(key));
        let oid = value("oid sha256:")?.trim();
        let hex = oid.len() == 64 && oid.bytes().all(|byte| byte.is_ascii_hexdigit());
        let size = value("size ")?.trim().parse().ok()?;
        (text.starts_with("version ") && hex).then(|| Pointer { oid: oid.to_ascii_lowercase(), size })
    }

    fn path(&self) -> PathBuf {
        [Path::new("lfs/objects"), Path::new(&self.oid[..2]), Path::new(&self.oid[2..4]), Path::new(&self.oid)]
            .iter()
            .collect()
    }

    /// The object, if the repository (the working directory) has it.
    pub fn object(&self) -> Outcome<Option<File>> {
        let mut file = match File::open(self.path()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(cannot_read)?,
        };
        let mut hash = Sha256::new();
        let mut block = vec![0; 1 << 16];
        let mut size = 0;
        loop {
            match file.read(&mut block).map_err(cannot_read)? {
                0 => break,
                count => {
                    hash.update(&block[..count]);
                    size += count as u64;
                }
            }
        }
        let is: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if is != self.oid || size != self.size {
            return Err(Refusal::new(format!(
                "the Git LFS object {} is damaged; remove it on the git gate and send it again with 'git lfs push'",
                self.oid
            )));
        }
        file.rewind().map_err(cannot_read)?;
        Ok(Some(file))
    }

    /// Whether it came to this gate and never got further.
    pub fn is_owed(&self) -> bool {
        Path::new("lfs/owed").join(&self.oid).exists()
    }
}

/// Notes that the upstream has these objects.
pub fn paid(oids: &[String]) {
    for oid in oids {
        let _ = fs::remove_file(Path::new("lfs/owed").join(oid));
    }
}

fn cannot_read(error: std::io::Error) -> Refusal {
    Refusal::new(format!("the git gate cannot read an object of Git LFS ({error}); tell its operator"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_of_every_version_of_git_lfs_are_read() {
        let oid = "ab".repeat(32);
        for text in [
            format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 12\n"),
            format!("version http://git-media.io/v/2\next-0-foo sha256:{oid}\noid sha256:{oid}\nsize 12\n"),
            format!("\nversion https://hawser.github.com/spec/v1\r\noid sha256:{}\r\nsize 12", oid.to_uppercase()),
        ] {
            assert_eq!(Pointer::parse(text.as_bytes()), Some(Pointer { oid: oid.clone(), size: 12 }), "{text}");
        }
        for text in ["", "version 1", &format!("oid sha256:{oid}\nsize 1"), "version 1\noid sha256:../../x\nsize 1"] {
            assert_eq!(Pointer::parse(text.as_bytes()), None, "{text}");
        }
    }
}
