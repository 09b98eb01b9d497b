//! What does a push bring that the repository does not have yet? Commits, tags, and each file at each path.

use std::collections::{HashMap, HashSet};

use super::git::{Objects, answer, changes, text};
use super::push::Push;
use super::{Outcome, Refusal};

/// The directory without entries, in either hash: git lists no file in it, but its name is pushed.
const EMPTY_TREES: [&str; 2] =
    ["4b825dc642cb6eb9a060e54bf8d69288fbee4904", "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321"];
/// How many tags may wrap one another; git itself has no limit, and nobody makes two.
const DEEPEST_TAG: usize = 64;

/// A file as a commit has it, new there or changed against every parent.
pub struct Place {
    pub path: Vec<u8>,
    /// The oldest commit of the push that has it; empty for a file that a tag names directly.
    pub commit: String,
}

/// All that is new with a push.
#[derive(Default)]
pub struct Contents {
    /// Oldest first.
    pub commits: Vec<String>,
    /// Annotated tags.
    pub tags: Vec<String>,
    /// Each distinct content once, with all its places.
    pub files: Vec<(String, Vec<Place>)>,
    /// Each path that was added or changed, with the oldest commit that did it.
    pub paths: Vec<(Vec<u8>, String)>,
}

impl Contents {
    /// Of the whole push.
    pub fn of(push: &Push, objects: &mut Objects) -> Outcome<Self> {
        let mut found = Contents::default();
        let mut files = Files::default();
        let commits = found.peel(push, objects, &mut files)?;
        let tips: String = commits.iter().map(|id| format!("{id}\n")).collect();
        if !tips.is_empty() {
            let new = answer(["rev-list", "--reverse", "--stdin", "--not", "--all"], tips.into_bytes())?;
            found.commits = text(&new).lines().map(str::to_owned).collect();
        }
        if !found.commits.is_empty() {
            let stdin: String = found.commits.iter().map(|id| format!("{id}\n")).collect();
            // Of a merge (`-c`) what differs from every parent: all else is judged where it comes from.
            let raw = answer(
                [
                    "diff-tree",
                    "--stdin",
                    "-r",
                    "-t",
                    "-c",
                    "--root",
                    "--raw",
                    "-z",
                    "--no-abbrev",
                    "--no-renames",
                    "-O/dev/null",
                ],
                stdin.into_bytes(),
            )?;
            changes(&raw, |commit, change| match &change.mode {
                b"000000" => {}
                b"160000" => files.name(change.path, commit),
                b"040000" if EMPTY_TREES.contains(&change.id.as_str()) => files.name(change.path, commit),
                b"040000" => {}
                _ => files.add(change.id, change.path, commit),
            })?;
        }
        found.files = files.files;
        found.paths = files.paths;
        Ok(found)
    }

    /// Follows the new tips through tags to what they name; returns the commits among it.
    fn peel(&mut self, push: &Push, objects: &mut Objects, files: &mut Files) -> Outcome<Vec<String>> {
        let mut commits = Vec::new();
        let mut seen = HashSet::new();
        let mut level: Vec<String> = push.tips().map(str::to_owned).filter(|id| seen.insert(id.clone())).collect();
        for _ in 0..DEEPEST_TAG {
            let mut deeper = Vec::new();
            let mut trees = Vec::new();
            objects.each(level.iter().map(String::as_str), |header, content| {
                match header.kind.as_str() {
                    "commit" => commits.push(header.id.clone()),
                    "tree" => trees.push(header.id.clone()),
                    "blob" => files.add(header.id.clone(), b"tagged-file".to_vec(), ""),
                    _ => {
                        let mut bytes = vec![0; usize::try_from(header.size.min(128)).unwrap_or(128)];
                        content.read_exact(&mut bytes).map_err(|_| Refusal::new("a tag cannot be read"))?;
                        let target = bytes.split(|byte| *byte == b'\n').next().and_then(|l| l.strip_prefix(b"object "));
                        deeper.push(text(target.ok_or_else(|| Refusal::new("a tag names no object"))?));
                        self.tags.push(header.id.clone());
                    }
                }
                Ok(())
            })?;
            for tree in trees {
                for entry in answer(["ls-tree", "-r", "-t", "-z", "--full-tree", &tree], Vec::new())?.split(|b| *b == 0)
                {
                    // "mode type id\tpath"
                    let Some(tab) = entry.iter().position(|byte| *byte == b'\t') else { continue };
                    let words = text(&entry[..tab]);
                    let path = entry[tab + 1..].to_vec();
                    match words.split(' ').collect::<Vec<_>>()[..] {
                        [_, "blob", id] => files.add(id.to_owned(), path, ""),
                        _ => files.name(path, ""),
                    }
                }
            }
            level = deeper.into_iter().filter(|id| seen.insert(id.clone())).collect();
            if level.is_empty() {
                return Ok(commits);
            }
        }
        Err(Refusal::new("a tag of a tag of a tag and so on cannot pass"))
    }
}

/// Files by content and by path, each once.
#[derive(Default)]
struct Files {
    files: Vec<(String, Vec<Place>)>,
    by_id: HashMap<String, usize>,
    seen: HashSet<(usize, Vec<u8>)>,
    paths: Vec<(Vec<u8>, String)>,
    named: HashSet<Vec<u8>>,
}

impl Files {
    fn add(&mut self, id: String, path: Vec<u8>, commit: &str) {
        let at = *self.by_id.entry(id.clone()).or_insert_with(|| {
            self.files.push((id, Vec::new()));
            self.files.len() - 1
        });
        if self.seen.insert((at, path.clone())) {
            self.files[at].1.push(Place { path: path.clone(), commit: commit.to_owned() });
        }
        self.name(path, commit);
    }

    fn name(&mut self, path: Vec<u8>, commit: &str) {
        if !self.named.contains(&path) {
            self.named.insert(path.clone());
            self.paths.push((path, commit.to_owned()));
        }
    }
}
