//! In what form does the detector get to see the contents? As pieces in files of ours, none larger than it reads at once.
//!
//! gitleaks reads a file in blocks of 100,000 bytes that do not overlap, passes over what it takes for a binary file, and
//! lets names decide what it looks at. So each piece fits into one block, overlaps its neighbours by more than any secret
//! measures, has a number for a name, and ends in a canary, a made-up secret: a piece whose canary is not found was not
//! read to its end.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::decode::{Encoding, texts};
use super::{Outcome, Refusal};

/// The rule that finds canaries.
pub const CANARY_RULE: &str = "bot-bottle-canary";
/// gitleaks' block.
const BLOCK: usize = 100_000;
/// A window of a file, so that its text fits into a block with what goes around it.
const WINDOW: usize = 92_000;
/// The same for UTF-16, where two bytes may become three.
const WIDE_WINDOW: usize = 60_000;
/// A secret of up to so many bytes is whole in one window, with what is around it. A private key of 16,384 bits has 12,600.
const OVERLAP: usize = 16_000;
/// A window rather ends with a line than within one, if there is an end of line in so many of its last bytes.
const END_OF_LINE: usize = 4_000;
/// Shorter texts share a piece.
const SMALL_TEXT: usize = 24_000;
/// Between the texts of a piece. No rule's blank matches it, and no text has it: control characters become blanks.
const BETWEEN: &str = "\n\u{1e}\n";

/// What a text belongs to. The numbers are places in the lists of the push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A content, and the member of an archive in it.
    File(usize, Option<String>),
    Commit(usize),
    Tag(usize),
    Path(usize),
    Ref(usize),
    PushOption(usize),
}

/// Which line of its subject a line of a piece is; 0 where lines mean nothing.
#[derive(Clone, Debug)]
pub struct Section {
    pub first: u64,
    pub subject: Subject,
    pub line: u64,
}

/// One file that the detector reads.
pub struct Piece {
    pub file: String,
    /// One list for each place where the same text is; ascending by first line.
    pub owners: Vec<Vec<Section>>,
    /// The text was cut in the middle of a line there.
    pub cut_before: bool,
    pub cut_after: bool,
}

/// The pieces of one run of the detector, on disk.
pub struct Pieces {
    pub directory: PathBuf,
    pub canary: String,
    pub pieces: Vec<Piece>,
    pub bytes: u64,
    known: HashMap<[u8; 32], usize>,
    shared: String,
    shared_lines: u64,
    shared_sections: Vec<Section>,
}

impl Pieces {
    /// In a new directory.
    pub fn new(directory: PathBuf) -> Outcome<Self> {
        let mut random = [0; 16];
        fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random)).map_err(cannot_write)?;
        let canary = format!("{CANARY_RULE}-{}", random.map(|byte| format!("{byte:02x}")).concat());
        let pieces = Pieces {
            directory,
            canary,
            pieces: Vec::new(),
            bytes: 0,
            known: HashMap::new(),
            shared: String::new(),
            shared_lines: 0,
            shared_sections: Vec::new(),
        };
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700).create(&pieces.directory).map_err(cannot_write)?;
        builder.create(pieces.directory.join("p")).map_err(cannot_write)?;
        Ok(pieces)
    }

    /// Forgets and removes all pieces.
    pub fn clear(&mut self) -> Outcome<()> {
        self.pieces.clear();
        self.known.clear();
        self.bytes = 0;
        for part in ["p", "n"] {
            match fs::remove_dir_all(self.directory.join(part)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(cannot_write(error)),
                _ => {}
            }
        }
        fs::create_dir(self.directory.join("p")).map_err(cannot_write)
    }

    /// A message or a name: short ones share a piece.
    pub fn text(&mut self, subject: Subject, bytes: &[u8]) -> Outcome<()> {
        if bytes.len() > SMALL_TEXT {
            return self.content(&subject, &mut { bytes }, "");
        }
        for text in texts(bytes, Encoding::of(bytes)).into_iter().filter(|text| !text.trim().is_empty()) {
            if self.shared.len() + text.len() > WINDOW {
                self.close_shared()?;
            }
            self.shared_sections.push(Section { first: self.shared_lines, subject: subject.clone(), line: 1 });
            self.shared += &text;
            self.shared += BETWEEN;
            self.shared_lines += lines(&text) + lines(BETWEEN);
        }
        Ok(())
    }

    /// A file's content, in windows.
    pub fn content(&mut self, subject: &Subject, reader: &mut dyn Read, suffix: &str) -> Outcome<()> {
        windows(reader, &mut |text, at| {
            let section = Section { first: 0, subject: subject.clone(), line: at.line };
            self.piece(text, suffix, vec![section], at.cut_before, at.cut_after)
        })
    }

    /// A name that rules about names alone are to see.
    pub fn name(&mut self, number: usize, path: &[u8]) -> Outcome<()> {
        let parts = path.split(|byte| *byte == b'/').map(|part| match part {
            b"" | b"." | b".." => super::git::argument(b"_"),
            part => super::git::argument(&part[part.len().saturating_sub(255)..]),
        });
        let file: PathBuf =
            [self.directory.join("n"), number.to_string().into()].into_iter().chain(parts.map(PathBuf::from)).collect();
        let directory = file.parent().unwrap_or(&file);
        match fs::create_dir_all(directory).and_then(|()| fs::write(&file, "\n")) {
            // A path that is longer than the system's files may have.
            Err(error) if error.kind() == std::io::ErrorKind::InvalidFilename => Ok(()),
            done => done.map_err(cannot_write),
        }
    }

    /// Writes what is still to be shared.
    pub fn close_shared(&mut self) -> Outcome<()> {
        if self.shared_sections.is_empty() {
            return Ok(());
        }
        let (text, sections) = (std::mem::take(&mut self.shared), std::mem::take(&mut self.shared_sections));
        self.shared_lines = 0;
        self.piece(&text, "", sections, false, false)
    }

    fn piece(
        &mut self,
        text: &str,
        suffix: &str,
        mut sections: Vec<Section>,
        before: bool,
        after: bool,
    ) -> Outcome<()> {
        let key = Sha256::new().chain_update(suffix).chain_update([0]).chain_update(text).finalize().into();
        let start = empty_start(text.as_bytes());
        for section in &mut sections {
            section.first += start as u64 + 1;
        }
        if let Some(known) = self.known.get(&key) {
            let piece = &mut self.pieces[*known];
            piece.owners.push(sections);
            // Only what is cut everywhere is judged elsewhere.
            piece.cut_before &= before;
            piece.cut_after &= after;
            return Ok(());
        }
        let file = format!("p/{}{suffix}", self.pieces.len());
        let whole = format!("{}{text}\n{}\n", "\n".repeat(start), self.canary);
        if whole.len() > BLOCK {
            return Err(Refusal::new("a piece of a file has grown too large to be scanned"));
        }
        fs::File::create_new(self.directory.join(&file))
            .and_then(|mut created| created.write_all(whole.as_bytes()))
            .map_err(cannot_write)?;
        self.bytes += whole.len() as u64;
        self.known.insert(key, self.pieces.len());
        self.pieces.push(Piece { file, owners: vec![sections], cut_before: before, cut_after: after });
        Ok(())
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

pub fn cannot_write(error: std::io::Error) -> Refusal {
    Refusal::new(format!("the git gate cannot write what is to be scanned ({error}); tell its operator"))
}

/// How many lines end in it.
pub fn lines(text: &str) -> u64 {
    text.bytes().filter(|byte| *byte == b'\n').count() as u64
}

/// The text of a piece's file.
pub fn read(directory: &Path, piece: &Piece) -> Outcome<String> {
    fs::read_to_string(directory.join(&piece.file)).map_err(cannot_write)
}

/// Where a window's text is in its file.
pub struct At {
    /// Its first line, from 1 on; 0 where the text has no lines of the file's.
    line: u64,
    cut_before: bool,
    cut_after: bool,
}

/// Gives all that a file can be read as, in windows that overlap.
pub fn windows(reader: &mut dyn Read, each: &mut dyn FnMut(&str, At) -> Outcome<()>) -> Outcome<()> {
    let mut window = Vec::new();
    read_to(reader, &mut window, WIDE_WINDOW)?;
    let encoding = Encoding::of(&window);
    let size = if encoding == Encoding::Bytes { WINDOW } else { WIDE_WINDOW };
    // First line of the window in each of the texts that have lines.
    let mut line = [1, 1];
    let mut cut_before = false;
    loop {
        read_to(reader, &mut window, size + 1)?;
        let last = window.len() <= size;
        let end = if last { window.len() } else { end_of_window(&window[..size], encoding) };
        let cut_after = !last && window[end - 1] != b'\n';
        for (nth, text) in texts(&window[..end], encoding).into_iter().enumerate() {
            let has_lines = nth == 0 || nth == 1 && encoding != Encoding::Bytes;
            let line = if has_lines { line[nth] } else { 0 };
            if !text.trim().is_empty() {
                each(&text, At { line, cut_before, cut_after })?;
            }
        }
        if last {
            return Ok(());
        }
        let next = start_of_next(&window[..end], encoding);
        cut_before = window[next - 1] != b'\n';
        for (nth, text) in texts(&window[..next], encoding).iter().take(2).enumerate() {
            line[nth] += lines(text);
        }
        window.drain(..next);
    }
}

fn read_to(reader: &mut dyn Read, window: &mut Vec<u8>, size: usize) -> Outcome<()> {
    let missing = size.saturating_sub(window.len()) as u64;
    let read = reader.take(missing).read_to_end(window);
    read.map(drop).map_err(|error| Refusal::new(format!("a file of the push cannot be read: {error}")))
}

fn end_of_window(window: &[u8], encoding: Encoding) -> usize {
    let tail = window.len() - END_OF_LINE;
    let line = window[tail..].iter().rposition(|byte| *byte == b'\n').filter(|_| encoding == Encoding::Bytes);
    line.map_or(window.len(), |at| tail + at + 1)
}

fn start_of_next(window: &[u8], encoding: Encoding) -> usize {
    let start = (window.len() - OVERLAP) & !1;
    let before = &window[start - END_OF_LINE..start];
    let line = before.iter().rposition(|byte| *byte == b'\n').filter(|_| encoding == Encoding::Bytes);
    line.map_or(start, |at| start - END_OF_LINE + at + 1)
}

/// How many empty lines to begin with, so that gitleaks takes the text for none of the binary formats that it would pass
/// over. Most are told by their first byte, a few by bytes further on.
fn empty_start(text: &[u8]) -> usize {
    let marks: [(usize, &[u8]); 3] = [(128, b"DICM"), (257, b"ustar"), (32_769, b"CD001")];
    let taken = |start: &usize| {
        marks.iter().any(|(at, mark)| text.get(at - start..).is_some_and(|rest| rest.starts_with(mark)))
    };
    (1..64).find(|start| !taken(start)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces() -> Pieces {
        let name = format!("bot-bottle-test-{}", bot_bottle_store::new_id());
        Pieces::new(std::env::temp_dir().join(name)).expect("a directory")
    }

    fn written(content: &[u8]) -> (Pieces, Vec<String>) {
        let mut pieces = pieces();
        pieces.content(&Subject::File(0, None), &mut { content }, "").expect("written");
        let read = pieces.pieces.iter().map(|piece| read(&pieces.directory, piece).expect("read")).collect();
        (pieces, read)
    }

    #[test]
    fn a_secret_is_whole_in_a_piece_at_every_offset() {
        let secret = "k".repeat(OVERLAP - END_OF_LINE - 200);
        for lines in [false, true] {
            for offset in (WINDOW - OVERLAP - 9_000..WINDOW + 9_000).step_by(499) {
                let filler: String = (0..30_000).map(|n| format!("{n:07}{}", if lines { '\n' } else { ' ' })).collect();
                let text = format!("{}\"{secret}\"{filler}", &filler[..offset]);
                let (_pieces, read) = written(text.as_bytes());
                assert!(read.iter().any(|piece| piece.contains(&format!("\"{secret}\""))), "{lines} {offset}");
            }
        }
    }

    #[test]
    fn every_piece_fits_into_a_block_and_ends_in_the_canary() {
        let wide: Vec<u8> = "中文".repeat(90_000).encode_utf16().flat_map(u16::to_le_bytes).collect();
        for content in
            [vec![b'x'; 400_000], vec![0xff; 400_000], [b"\xff\xfe".to_vec(), wide].concat(), vec![b'\n'; 99]]
        {
            let (pieces, read) = written(&content);
            assert!(read.iter().all(|piece| piece.len() <= BLOCK && piece.ends_with(&format!("{}\n", pieces.canary))));
        }
    }

    #[test]
    fn lines_are_counted_through_the_windows() {
        let text: String = (1..100_000).map(|n| format!("line {n}\n")).collect();
        let (pieces, read) = written(text.as_bytes());
        assert!(pieces.pieces.len() > 5);
        for (piece, text) in pieces.pieces.iter().zip(read) {
            let section = &piece.owners[0][0];
            let first = text.lines().nth(section.first as usize - 1).expect("a line");
            assert_eq!(first, format!("line {}", section.line));
        }
    }

    #[test]
    fn the_same_text_is_one_piece_with_two_owners() {
        let mut pieces = pieces();
        for file in [0, 1] {
            pieces.content(&Subject::File(file, None), &mut { &b"same\n"[..] }, "").expect("written");
        }
        assert_eq!((pieces.pieces.len(), pieces.pieces[0].owners.len()), (1, 2));
    }

    #[test]
    fn short_texts_share_a_piece_and_keep_their_lines() {
        let mut pieces = pieces();
        for (nth, text) in ["one\ntwo\n", "three", "four\n\nfive"].iter().enumerate() {
            pieces.text(Subject::Commit(nth), text.as_bytes()).expect("written");
        }
        pieces.close_shared().expect("written");
        let text = read(&pieces.directory, &pieces.pieces[0]).expect("read");
        let lines: Vec<&str> = text.lines().collect();
        let firsts: Vec<&str> = pieces.pieces[0].owners[0].iter().map(|s| lines[s.first as usize - 1]).collect();
        assert_eq!(firsts, ["one", "three", "four"]);
    }

    #[test]
    fn no_text_looks_like_a_binary_file_to_gitleaks() {
        for (at, mark) in [(257, "ustar"), (128, "DICM"), (32_769, "CD001")] {
            for before in at - 3..=at {
                let text = format!("{}{mark}{mark}", "x".repeat(before));
                let whole = "\n".repeat(empty_start(text.as_bytes())) + &text;
                assert!(!whole[at..].starts_with(mark), "{at} {before}");
            }
        }
    }

    #[test]
    fn the_directory_goes_with_the_pieces() {
        let (pieces, _) = written(b"text");
        let directory = pieces.directory.clone();
        drop(pieces);
        assert!(!directory.exists());
    }
}
