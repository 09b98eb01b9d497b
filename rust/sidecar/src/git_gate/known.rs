//! Which of the secrets does the upstream have already? Those that stand in the same path in its history.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::Path;

use super::Outcome;
use super::contents::Contents;
use super::detector::Leak;
use super::files::open;
use super::git::{Objects, answer, argument, changes};
use super::pieces::{Subject, windows};

/// So many paths are looked up at once: they have to fit into the arguments of a program.
const PATHS_AT_ONCE: usize = 100;

/// What the refs of the repository, which are the upstream's, have.
#[derive(Default)]
pub struct Known {
    paths: HashSet<Vec<u8>>,
    leaks: HashSet<(usize, Vec<u8>)>,
}

impl Known {
    /// Whether some commit has a file there.
    pub fn has_path(&self, path: &[u8]) -> bool {
        self.paths.contains(path)
    }

    /// Whether the secret of the leak with this number stands in some version of that file.
    pub fn has(&self, leak: usize, path: &[u8]) -> bool {
        self.leaks.contains(&(leak, path.to_vec()))
    }

    /// How many leaks there are that need nobody's decision.
    pub fn count(&self) -> usize {
        self.leaks.len()
    }

    /// Looks through the history of each path that a leak is in.
    pub fn look(leaks: &[Leak], contents: &Contents, objects: &mut Objects, spool: &Path) -> Outcome<Self> {
        let mut wanted: HashMap<&[u8], Vec<usize>> = HashMap::new();
        for (nth, leak) in leaks.iter().enumerate() {
            for (subject, _) in &leak.places {
                match subject {
                    Subject::File(file, _) => {
                        for place in &contents.files[*file].1 {
                            wanted.entry(&place.path).or_default().push(nth);
                        }
                    }
                    Subject::Path(path) => wanted.entry(&contents.paths[*path].0).or_default().push(nth),
                    _ => {}
                }
            }
        }
        let mut known = Known::default();
        let mut paths: Vec<&[u8]> = wanted.keys().copied().collect();
        paths.sort_unstable();
        for paths in paths.chunks(PATHS_AT_ONCE) {
            for (id, at) in versions(paths)? {
                known.paths.extend(at.iter().cloned());
                let asked: Vec<(usize, &Vec<u8>)> = at
                    .iter()
                    .flat_map(|path| wanted.get(path.as_slice()).into_iter().flatten().map(move |leak| (*leak, path)))
                    .filter(|(leak, path)| !leaks[*leak].trace.is_empty() && !known.has(*leak, path))
                    .collect();
                if asked.is_empty() {
                    continue;
                }
                let mut seen = HashSet::new();
                objects.each([id.as_str()], |header, content| {
                    open(header.size, content, spool, u64::MAX, &mut |_, reader| {
                        windows(reader, &mut |text, _| {
                            seen.extend(asked.iter().filter(|(leak, _)| text.contains(leaks[*leak].trace.as_str())));
                            Ok(())
                        })
                    })?;
                    Ok(())
                })?;
                known.leaks.extend(seen.into_iter().map(|(leak, path)| (leak, path.clone())));
            }
        }
        Ok(known)
    }
}

/// Every version that the history has of each of these paths, by content.
fn versions(paths: &[&[u8]]) -> Outcome<HashMap<String, Vec<Vec<u8>>>> {
    let after = |first: &[&str]| -> Vec<OsString> {
        let first = first.iter().map(OsString::from);
        first.chain(["--".into()]).chain(paths.iter().map(|path| argument(path))).collect()
    };
    let commits = answer(after(&["--literal-pathspecs", "rev-list", "--all", "--full-history"]), Vec::new())?;
    let diff = ["--literal-pathspecs", "diff-tree", "--stdin", "-r", "-m", "--root", "--raw", "-z", "--no-abbrev"];
    let raw = answer(after(&[&diff[..], &["--no-renames", "-O/dev/null"]].concat()), commits)?;
    let mut found: HashMap<String, Vec<Vec<u8>>> = HashMap::new();
    changes(&raw, |_, change| {
        if change.mode != *b"000000" && change.mode != *b"160000" {
            let at = found.entry(change.id).or_default();
            if !at.contains(&change.path) {
                at.push(change.path);
            }
        }
    })?;
    Ok(found)
}
