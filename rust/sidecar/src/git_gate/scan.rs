//! What is in a push that nobody should see? All that is new in it goes through the detector, batch by batch.

use std::env;
use std::fs;
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::contents::Contents;
use super::detector::{Detector, Leak};
use super::files;
use super::git::{Objects, known_before, text};
use super::pieces::{Pieces, Subject, cannot_write};
use super::push::Push;
use super::unpack::{BUDGET, Unpacked};
use super::{Outcome, Refusal, say};

/// So much is on disk at once, in so many files.
const BATCH_BYTES: u64 = 192 << 20;
const BATCH_PIECES: usize = 50_000;
/// From so many objects on the pusher is told that it takes a while.
const MANY: usize = 1_000;
/// How a pointer of Git LFS begins, and how long it may be (git-lfs, docs/spec.md).
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1";
const LFS_LONGEST: u64 = 1024;

pub struct Scan<'a> {
    pub push: &'a Push,
    pub contents: &'a Contents,
    pub detector: &'a Detector,
    pub max_file: u64,
    pub interrupted: &'a AtomicBool,
}

impl Scan<'_> {
    /// All leaks of the push. `directory` is made for the pieces, and is gone afterwards.
    pub fn leaks(&self, objects: &mut Objects, directory: &Path) -> Outcome<Vec<Leak>> {
        let (commits, count) = (self.contents.commits.len(), self.contents.files.len());
        if commits + count >= MANY {
            let files = if count == 1 { "1 file".to_owned() } else { format!("{count} files") };
            say(&format!("looking for secrets in {commits} commits with {files}, this takes a while"));
        }
        let mut leaks = Vec::new();
        let mut pieces = Pieces::new(directory.to_owned())?;
        self.texts(&mut pieces, objects)?;
        self.files(&mut pieces, objects, &mut leaks)?;
        pieces.close_shared()?;
        self.run(&mut pieces, &mut leaks)?;
        // git would take what is left there for objects.
        fs::remove_dir_all(directory).map_err(cannot_write)?;
        Ok(leaks)
    }

    fn run(&self, pieces: &mut Pieces, leaks: &mut Vec<Leak>) -> Outcome<()> {
        if !pieces.pieces.is_empty() {
            leaks.extend(self.detector.run(pieces, self.interrupted)?);
        }
        pieces.clear()
    }

    /// Names and messages.
    fn texts(&self, pieces: &mut Pieces, objects: &mut Objects) -> Outcome<()> {
        for (nth, update) in self.push.updates.iter().enumerate() {
            if update.new.is_some() {
                pieces.text(Subject::Ref(nth), &update.name)?;
            }
        }
        for (nth, option) in push_options().iter().enumerate() {
            pieces.text(Subject::PushOption(nth), option)?;
        }
        for (nth, (path, _)) in self.contents.paths.iter().enumerate() {
            pieces.text(Subject::Path(nth), path)?;
            if self.detector.judges_name(path) {
                pieces.name(nth, path)?;
            }
        }
        let mut nth = 0;
        objects.each(self.contents.commits.iter().map(String::as_str), |_, content| {
            let bytes = whole(content)?;
            // What git itself writes there is no message: ids of the tree and of the parents.
            let own = |line: &&[u8]| line.starts_with(b"tree ") || line.starts_with(b"parent ");
            let head: usize = bytes.split_inclusive(|byte| *byte == b'\n').take_while(own).map(<[u8]>::len).sum();
            nth += 1;
            pieces.text(Subject::Commit(nth - 1), &bytes[head..])
        })?;
        let mut nth = 0;
        objects.each(self.contents.tags.iter().map(String::as_str), |_, content| {
            let bytes = whole(content)?;
            let own = |line: &&[u8]| line.starts_with(b"object ");
            let head: usize = bytes.split_inclusive(|byte| *byte == b'\n').take_while(own).map(<[u8]>::len).sum();
            nth += 1;
            pieces.text(Subject::Tag(nth - 1), &bytes[head..])
        })
    }

    fn files(&self, pieces: &mut Pieces, objects: &mut Objects, leaks: &mut Vec<Leak>) -> Outcome<()> {
        let spool = pieces.directory.join("file");
        let mut pointers = Vec::new();
        let mut nth = 0;
        objects.each(self.contents.files.iter().map(|(id, _)| id.as_str()), |header, content| {
            let places = &self.contents.files[nth].1;
            let path = || places.first().map(|place| text(&place.path)).unwrap_or_default();
            if header.size > self.max_file {
                return Err(Refusal::new(format!(
                    "{} has {} bytes; above {} it is not scanned and cannot pass",
                    path(),
                    header.size,
                    self.max_file
                )));
            }
            let mut start = Vec::new();
            content.take(LFS_LONGEST).read_to_end(&mut start).map_err(cannot_write)?;
            if header.size < LFS_LONGEST && start.starts_with(LFS_POINTER) {
                pointers.push((header.id.clone(), path()));
            }
            let terraform = |path: &[u8]| path.ends_with(b".tf") || path.ends_with(b".hcl");
            let suffix = if places.iter().any(|place| terraform(&place.path)) { ".tf" } else { "" };
            let mut content = Cursor::new(start).chain(content);
            let whole = files::open(header.size, &mut content, &spool, &mut |member, reader| {
                let subject = Subject::File(nth, member.map(str::to_owned));
                pieces.content(&subject, reader, suffix)
            })?;
            if whole == Unpacked::InPart {
                leaks.push(not_unpacked(nth, &header.id));
            }
            nth += 1;
            if pieces.bytes > BATCH_BYTES || pieces.pieces.len() > BATCH_PIECES {
                self.run(pieces, leaks)?;
            }
            Ok(())
        })?;
        refuse_pointers(&pointers)
    }
}

/// Nobody looked at the rest of it, so somebody has to say that it may pass.
fn not_unpacked(file: usize, id: &str) -> Leak {
    Leak {
        rule: "archive-not-unpacked".to_owned(),
        description: format!("An archive that unpacks to more than {} MiB; the rest was not looked at.", BUDGET >> 20),
        secret: id.to_owned(),
        trace: String::new(),
        places: vec![(Subject::File(file, None), 0)],
        before: Vec::new(),
        found: Vec::new(),
        after: Vec::new(),
    }
}

/// A pointer whose object the upstream cannot have: LFS sends those on a way of its own, which does not lead through here.
fn refuse_pointers(pointers: &[(String, String)]) -> Outcome<()> {
    if pointers.is_empty() {
        return Ok(());
    }
    let known = known_before(&pointers.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>())?;
    let new: Vec<&str> =
        pointers.iter().zip(known).filter(|(_, known)| !known).map(|((_, path), _)| path.as_str()).collect();
    let Some(first) = new.first() else { return Ok(()) };
    let more = if new.len() > 1 { format!(" and {} more", new.len() - 1) } else { String::new() };
    Err(Refusal::new(format!(
        "{first}{more} is kept in Git LFS, whose objects this gate cannot scan or pass on. Commit it as an ordinary file:\n    \
         git lfs untrack '{first}'\n    git add --renormalize . && git commit --amend --no-edit\n\
         or, for older commits: git lfs migrate export --include='{first}' --everything"
    )))
}

fn push_options() -> Vec<Vec<u8>> {
    let count = env::var("GIT_PUSH_OPTION_COUNT").ok().and_then(|count| count.parse().ok()).unwrap_or(0usize);
    let option = |nth| env::var_os(format!("GIT_PUSH_OPTION_{nth}"));
    (0..count).filter_map(option).map(std::os::unix::ffi::OsStringExt::into_vec).collect()
}

fn whole(content: &mut dyn Read) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    content.read_to_end(&mut bytes).map_err(cannot_write)?;
    Ok(bytes)
}
