//! How are thousands of new tags written at once? Into git's list of packed refs, as `git pack-refs` writes it
//! (gitrepository-layout(5)); git itself writes a file for each, and syncs it.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::git::{answer, text};
use super::push::Update;

const HEADER: &[u8] = b"# pack-refs with: peeled fully-peeled sorted \n";

/// Adds tags that the repository (the working directory) does not have. `false`: it is not done, and git has to do it.
/// The caller holds the gate's lock.
pub fn add(tags: &[&Update]) -> bool {
    // A repository of the newer kind has no such list.
    !Path::new("reftable").exists() && Path::new("refs").is_dir() && write(tags).is_some()
}

fn write(tags: &[&Update]) -> Option<()> {
    let lock = Lock::take()?;
    let before = match fs::read("packed-refs") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read.ok()?,
    };
    let mut refs = read(&before)?;
    let mut fresh = Vec::new();
    for (tag, peeled) in tags.iter().zip(peeled(tags)?) {
        let id = tag.new.as_deref()?;
        let mut lines = [id.as_bytes(), b" ", &tag.name[..], b"\n"].concat();
        if peeled != id {
            lines.extend(format!("^{peeled}\n").bytes());
        }
        if refs.insert(&tag.name, lines).is_some() {
            return None;
        }
        fresh.push(&tag.name[..]);
    }
    // No name is a directory of another, whichever of the two is new.
    let directories: HashSet<&[u8]> = refs.keys().flat_map(|name| parents(name)).collect();
    let taken = |name: &[u8]| refs.contains_key(name) || Path::new(&super::git::argument(name)).is_file();
    if directories.iter().any(|name| taken(name))
        || fresh.iter().any(|name| Path::new(&super::git::argument(name)).exists())
    {
        return None;
    }
    let mut file = lock.0.as_ref()?;
    file.write_all(HEADER).ok()?;
    file.write_all(&refs.into_values().collect::<Vec<_>>().concat()).ok()?;
    file.sync_all().ok()?;
    lock.commit()
}

/// Each ref of the list with its lines. `None` if its tags are not all peeled, as an old git left them.
fn read(packed: &[u8]) -> Option<BTreeMap<&[u8], Vec<u8>>> {
    let mut refs: BTreeMap<&[u8], Vec<u8>> = BTreeMap::new();
    let mut last: Option<&[u8]> = None;
    for line in packed.split_inclusive(|byte| *byte == b'\n') {
        match line.first()? {
            b'#' if text(line).contains(" fully-peeled ") => {}
            b'#' => return None,
            b'^' => refs.get_mut(last?)?.extend(line),
            _ => {
                let name = line.strip_suffix(b"\n")?.splitn(2, |byte| *byte == b' ').nth(1)?;
                refs.insert(name, line.to_vec());
                last = Some(name);
            }
        }
    }
    Some(refs)
}

/// What each tag names in the end.
fn peeled(tags: &[&Update]) -> Option<Vec<String>> {
    let asked: String = tags.iter().map(|tag| format!("{}^{{}}\n", tag.new.as_deref().unwrap_or_default())).collect();
    let told = answer(["cat-file", "--batch-check=%(objectname)"], asked.into_bytes()).ok()?;
    let ids: Vec<String> = text(&told).lines().map(str::to_owned).collect();
    let whole = ids.len() == tags.len() && ids.iter().all(|id| id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    whole.then_some(ids)
}

/// The directories that a name lies in.
fn parents(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    name.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &name[..at])
}

/// git's own lock on the list, which becomes the list or goes away.
struct Lock(Option<File>);

impl Lock {
    const PATH: &str = "packed-refs.lock";

    fn take() -> Option<Self> {
        File::create_new(Self::PATH).ok().map(|file| Lock(Some(file)))
    }

    fn commit(mut self) -> Option<()> {
        fs::rename(Self::PATH, "packed-refs").ok()?;
        self.0 = None;
        Some(())
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.0.is_some() {
            let _ = fs::remove_file(Self::PATH);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read_only_if_all_of_it_is_peeled() {
        let list = [HEADER, b"aa refs/heads/a b\nbb refs/tags/v1\n^aa\n"].concat();
        let refs = read(&list).expect("a list");
        assert_eq!(refs[&b"refs/tags/v1"[..]], b"bb refs/tags/v1\n^aa\n");
        assert_eq!(refs[&b"refs/heads/a b"[..]], b"aa refs/heads/a b\n");
        for list in [&b"# pack-refs with: peeled \naa refs/tags/a\n"[..], b"^aa\n", b"aa\n", b"aa refs/tags/a"] {
            assert!(read(list).is_none(), "{list:?}");
        }
    }

    #[test]
    fn the_directories_of_a_name_are_its_parents() {
        assert_eq!(parents(b"refs/tags/a/b").collect::<Vec<_>>(), [&b"refs"[..], b"refs/tags", b"refs/tags/a"]);
    }
}
