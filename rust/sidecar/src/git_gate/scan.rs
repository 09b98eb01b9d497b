//! What is in a push that nobody should see? All that is new in it goes through the detector, batch by batch.

use std::env;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::contents::Contents;
use super::detector::{Detector, Leak};
use super::files;
use super::git::{Objects, known_before, text};
use super::lfs::Pointer;
use super::pieces::{Pieces, Subject, cannot_write};
use super::push::Push;
use super::unpack::{BUDGET, Unpacked};
use super::{Outcome, Refusal, say};

/// So much is on disk at once, in so many files.
const BATCH_BYTES: u64 = 192 << 20;
const BATCH_PIECES: usize = 50_000;
/// From so many objects on the pusher is told that it takes a while.
const MANY: usize = 1_000;

/// What a push holds.
#[derive(Default)]
pub struct Scanned {
    pub leaks: Vec<Leak>,
    /// The objects of Git LFS that were scanned with it, by id.
    pub objects: Vec<String>,
}

pub struct Scan<'a> {
    pub push: &'a Push,
    pub contents: &'a Contents,
    pub detector: &'a Detector,
    pub max_file: u64,
    pub interrupted: &'a AtomicBool,
}

impl Scan<'_> {
    /// Looks at all of the push. `directory` is made for the pieces, and is gone afterwards.
    pub fn run(&self, objects: &mut Objects, directory: &Path) -> Outcome<Scanned> {
        let (commits, count) = (self.contents.commits.len(), self.contents.files.len());
        if commits + count >= MANY {
            let files = if count == 1 { "1 file".to_owned() } else { format!("{count} files") };
            say(&format!("looking for secrets in {commits} commits with {files}, this takes a while"));
        }
        let mut found = Scanned::default();
        let mut pieces = Pieces::new(directory.to_owned())?;
        self.texts(&mut pieces, objects)?;
        self.files(&mut pieces, objects, &mut found)?;
        pieces.close_shared()?;
        self.detect(&mut pieces, &mut found.leaks)?;
        // git would take what is left there for objects.
        fs::remove_dir_all(directory).map_err(cannot_write)?;
        Ok(found)
    }

    fn detect(&self, pieces: &mut Pieces, leaks: &mut Vec<Leak>) -> Outcome<()> {
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

    fn files(&self, pieces: &mut Pieces, objects: &mut Objects, found: &mut Scanned) -> Outcome<()> {
        let spool = pieces.directory.join("file");
        let mut missing = Vec::new();
        let mut nth = 0;
        objects.each(self.contents.files.iter().map(|(id, _)| id.as_str()), |header, content| {
            let places = &self.contents.files[nth].1;
            let path = || places.first().map(|place| text(&place.path)).unwrap_or_default();
            self.check_size(header.size, path)?;
            let terraform = |path: &[u8]| path.ends_with(b".tf") || path.ends_with(b".hcl");
            let suffix = if places.iter().any(|place| terraform(&place.path)) { ".tf" } else { "" };
            let opened = files::open(header.size, content, &spool, self.max_file, &mut |member, reader| {
                let subject = Subject::File(nth, member.map(str::to_owned));
                pieces.content(&subject, reader, suffix)
            })?;
            if opened.unpacked == Unpacked::InPart {
                found.leaks.push(not_unpacked(nth, &header.id));
            }
            match opened.object {
                None => {}
                Some((pointer, true)) => found.objects.push(pointer.oid),
                Some((pointer, false)) => {
                    self.check_size(pointer.size, path)?;
                    missing.push((header.id.clone(), pointer, path()));
                }
            }
            nth += 1;
            if pieces.bytes > BATCH_BYTES || pieces.pieces.len() > BATCH_PIECES {
                self.detect(pieces, &mut found.leaks)?;
            }
            Ok(())
        })?;
        refuse_missing(&missing)
    }

    fn check_size(&self, size: u64, path: impl Fn() -> String) -> Outcome<()> {
        if size <= self.max_file {
            return Ok(());
        }
        let (path, most) = (path(), self.max_file);
        Err(Refusal::new(format!("{path} has {size} bytes; above {most} it is not scanned and cannot pass")))
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

/// A pointer that is new, and whose object is neither here nor has ever been on its way through here: the upstream would
/// have a file that nobody can open, or one that nobody has looked at.
fn refuse_missing(missing: &[(String, Pointer, String)]) -> Outcome<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let before = known_before(&missing.iter().map(|(id, ..)| id.as_str()).collect::<Vec<_>>())?;
    let new = missing.iter().zip(before).filter(|((_, pointer, _), before)| !before || pointer.is_owed());
    let new: Vec<&str> = new.map(|((.., path), _)| path.as_str()).collect();
    let Some(first) = new.first() else { return Ok(()) };
    let more = if new.len() > 1 { format!(" and {} more", new.len() - 1) } else { String::new() };
    Err(Refusal::new(format!(
        "{first}{more} is kept in Git LFS, and the object itself has not come here to be scanned. Send it, then push again:\n    \
         git config lfs.gitprotocol http\n    git lfs push --all origin\n\
         or commit it as an ordinary file: git lfs untrack '{first}' && git add --renormalize . && git commit --amend --no-edit"
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
