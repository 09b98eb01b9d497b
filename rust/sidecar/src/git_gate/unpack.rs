//! What is inside a gzip file or a zip archive? Its members, within a budget that a bomb uses up and an archive does not.

use std::io::{Cursor, Read, Seek, SeekFrom};

use flate2::read::{DeflateDecoder, MultiGzDecoder};

use super::Outcome;

/// Of one file of the push, so much is unpacked, over all levels.
pub const BUDGET: u64 = 256 << 20;
/// How many archives within archives are opened.
const DEEPEST: usize = 4;
/// So many members of one file are looked at.
const MOST_MEMBERS: usize = 50_000;
/// A larger archive within an archive is not kept in memory to be opened.
const LARGEST_INNER: u64 = 64 << 20;
/// The end of a zip archive is looked for in so much of its tail: its comment may have 65,535 bytes.
const TAIL: u64 = 22 + 65_535;

/// Whether everything that can be unpacked was.
#[derive(Debug, PartialEq, Eq)]
pub enum Unpacked {
    Whole,
    /// The budget ended; what is left was not looked at.
    InPart,
}

/// Something a file can be read from, twice.
pub trait Source: Read + Seek {}
impl<T: Read + Seek> Source for T {}

pub struct Unpacker<'a> {
    left: u64,
    members: usize,
    /// Is given each member's path within the archive and a reader of it.
    member: &'a mut dyn FnMut(&str, &mut dyn Read) -> Outcome<()>,
}

impl<'a> Unpacker<'a> {
    pub fn new(member: &'a mut dyn FnMut(&str, &mut dyn Read) -> Outcome<()>) -> Self {
        Unpacker { left: BUDGET, members: 0, member }
    }

    /// Gives each member of `source`, if it is an archive, and of the archives in it.
    pub fn open(&mut self, source: &mut dyn Source, within: &str, depth: usize) -> Outcome<Unpacked> {
        let mut start = [0; 4];
        let got = read_up_to(source, &mut start);
        if got >= 2 && start[..2] == [0x1f, 0x8b] {
            let _ = source.seek(SeekFrom::Start(0));
            return self.member(&mut MultiGzDecoder::new(source), within, depth);
        }
        let Some(members) = zip_members(source) else { return Ok(Unpacked::Whole) };
        let mut whole = Unpacked::Whole;
        for member in members {
            self.members += 1;
            if self.members > MOST_MEMBERS {
                return Ok(Unpacked::InPart);
            }
            let Some(data) = member.data(source) else { continue };
            if source.seek(SeekFrom::Start(data)).is_err() {
                continue;
            }
            let packed = Read::take(&mut *source, member.packed);
            let path = if within.is_empty() { member.name } else { format!("{within}!{}", member.name) };
            let done = match member.method {
                0 => self.member(&mut { packed }, &path, depth)?,
                8 => self.member(&mut DeflateDecoder::new(packed), &path, depth)?,
                _ => Unpacked::Whole,
            };
            if done == Unpacked::InPart {
                whole = Unpacked::InPart;
                if self.left == 0 {
                    break;
                }
            }
        }
        Ok(whole)
    }

    fn member(&mut self, content: &mut dyn Read, path: &str, depth: usize) -> Outcome<Unpacked> {
        // What is damaged ends early, and what came before counts.
        let mut content = Quiet(content);
        let mut start = [0; 4];
        let got = read_up_to(&mut content, &mut start);
        let archive = got >= 2 && start[..2] == [0x1f, 0x8b] || got == 4 && start == *b"PK\x03\x04";
        let limit = self.left;
        if archive && depth < DEEPEST {
            let mut bytes = start[..got].to_vec();
            let most = limit.min(LARGEST_INNER);
            let _ = content.by_ref().take(most.saturating_sub(got as u64)).read_to_end(&mut bytes);
            self.left = self.left.saturating_sub(bytes.len() as u64);
            let more = content.read(&mut [0; 1]).unwrap_or(0) > 0;
            let path = if path.is_empty() { "content" } else { path };
            (self.member)(path, &mut Cursor::new(&bytes))?;
            let inner = self.open(&mut Cursor::new(bytes), path, depth + 1)?;
            return Ok(if more { Unpacked::InPart } else { inner });
        }
        let mut counted = Cursor::new(&start[..got]).chain(content).take(limit);
        (self.member)(path, &mut counted)?;
        self.left = counted.limit();
        let used_up = self.left == 0 && counted.into_inner().read(&mut [0; 1]).unwrap_or(0) > 0;
        Ok(if used_up || (archive && depth >= DEEPEST) { Unpacked::InPart } else { Unpacked::Whole })
    }
}

/// Damaged data ends, rather than failing.
struct Quiet<'a>(&'a mut dyn Read);

impl Read for Quiet<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        Ok(self.0.read(buffer).unwrap_or(0))
    }
}

fn read_up_to(source: &mut (impl Read + ?Sized), buffer: &mut [u8]) -> usize {
    let mut got = 0;
    while got < buffer.len() {
        match source.read(&mut buffer[got..]) {
            Ok(count) if count > 0 => got += count,
            _ => break,
        }
    }
    got
}

struct Member {
    name: String,
    method: u16,
    packed: u64,
    header: u64,
}

impl Member {
    /// Where its data begins, as its own header says.
    fn data(&self, source: &mut dyn Source) -> Option<u64> {
        let mut header = [0; 30];
        source.seek(SeekFrom::Start(self.header)).ok()?;
        (read_up_to(source, &mut header) == 30 && header[..4] == *b"PK\x03\x04").then_some(())?;
        Some(self.header + 30 + u64::from(u16_at(&header, 26)?) + u64::from(u16_at(&header, 28)?))
    }
}

/// The members that a zip archive's directory lists (PKWARE APPNOTE 4.3). Data may come before the archive, as in
/// programs that unpack themselves. `None` if it is no zip archive.
fn zip_members(source: &mut dyn Source) -> Option<Vec<Member>> {
    let size = source.seek(SeekFrom::End(0)).ok()?;
    let from = size.saturating_sub(TAIL);
    source.seek(SeekFrom::Start(from)).ok()?;
    let mut tail = Vec::new();
    Read::take(&mut *source, TAIL).read_to_end(&mut tail).ok()?;
    let end = tail.windows(4).rposition(|four| four == b"PK\x05\x06")?;
    let record = &tail[end..];
    let mut length = u64::from(u32_at(record, 12)?);
    let mut offset = u64::from(u32_at(record, 16)?);
    let mut directory_end = from + end as u64;
    // Zip64: a locator before the record leads to a larger one.
    if let Some(locator) = end.checked_sub(20).map(|at| &tail[at..end]).filter(|l| l.starts_with(b"PK\x06\x07")) {
        let at = u64_at(locator, 8)?;
        let mut larger = [0; 56];
        source.seek(SeekFrom::Start(at)).ok()?;
        if read_up_to(source, &mut larger) == 56 && larger.starts_with(b"PK\x06\x06") {
            (length, offset, directory_end) = (u64_at(&larger, 40)?, u64_at(&larger, 48)?, at);
        }
    }
    let starts = directory_end.checked_sub(length)?;
    let shift = starts.saturating_sub(offset);
    source.seek(SeekFrom::Start(starts)).ok()?;
    let mut directory = Vec::new();
    Read::take(&mut *source, length.min(LARGEST_INNER)).read_to_end(&mut directory).ok()?;

    let mut members = Vec::new();
    let mut rest = directory.as_slice();
    while rest.starts_with(b"PK\x01\x02") && members.len() <= MOST_MEMBERS {
        let (name, extra, comment) = (u16_at(rest, 28)?, u16_at(rest, 30)?, u16_at(rest, 32)?);
        let (name, extra, comment) = (usize::from(name), usize::from(extra), usize::from(comment));
        let mut member = Member {
            name: String::from_utf8_lossy(rest.get(46..46 + name)?).into_owned(),
            method: u16_at(rest, 10)?,
            packed: u64::from(u32_at(rest, 20)?),
            header: u64::from(u32_at(rest, 42)?),
        };
        member.widen(u32_at(rest, 24)?, rest.get(46 + name..46 + name + extra)?);
        member.header += shift;
        members.push(member);
        rest = rest.get(46 + name + extra + comment..)?;
    }
    Some(members)
}

impl Member {
    /// Sizes of four bytes that are all ones are in the extra field instead (APPNOTE 4.5.3).
    fn widen(&mut self, unpacked: u32, mut extra: &[u8]) {
        while let (Some(id), Some(length)) = (u16_at(extra, 0), u16_at(extra, 2)) {
            let Some(field) = extra.get(4..4 + usize::from(length)) else { return };
            if id == 1 {
                let mut at = if unpacked == u32::MAX { 8 } else { 0 };
                for value in [&mut self.packed, &mut self.header] {
                    if *value == u64::from(u32::MAX)
                        && let Some(wide) = u64_at(field, at)
                    {
                        *value = wide;
                        at += 8;
                    }
                }
                return;
            }
            extra = &extra[4 + usize::from(length)..];
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).expect("in memory");
        encoder.finish().expect("in memory")
    }

    /// A zip archive of one deflated and one stored member.
    fn zip(deflated: &[u8], stored: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(deflated).expect("in memory");
        let members = [("d.txt", 8u16, encoder.finish().expect("in memory")), ("s.txt", 0, stored.to_vec())];
        let (mut file, mut directory) = (Vec::new(), Vec::new());
        for (name, method, data) in &members {
            let at = file.len() as u32;
            let sizes = [(data.len() as u32).to_le_bytes(), 0u32.to_le_bytes()].concat();
            let common = [&[0u8; 4][..], &method.to_le_bytes(), &[0; 8], &sizes, &5u16.to_le_bytes(), &[0; 2]].concat();
            file.extend([&b"PK\x03\x04"[..], &common[..][..26], name.as_bytes(), data].concat());
            directory.extend([&b"PK\x01\x02\0\0"[..], &common, &[0; 10], &at.to_le_bytes(), name.as_bytes()].concat());
        }
        let end = [(directory.len() as u32).to_le_bytes(), (file.len() as u32).to_le_bytes()].concat();
        [&file, &directory, &b"PK\x05\x06\0\0\0\0\x02\0\x02\0"[..], &end, &[0; 2]].concat()
    }

    fn members(file: &[u8]) -> (Vec<(String, Vec<u8>)>, Unpacked) {
        let mut found = Vec::new();
        let mut member = |path: &str, content: &mut dyn Read| {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes).expect("quiet");
            bytes.truncate(20);
            found.push((path.to_owned(), bytes));
            Ok(())
        };
        let whole = Unpacker::new(&mut member).open(&mut Cursor::new(file), "", 0).expect("no refusal");
        (found, whole)
    }

    fn one(path: &str, content: &[u8]) -> (String, Vec<u8>) {
        (path.to_owned(), content.to_vec())
    }

    #[test]
    fn every_member_of_a_gzip_file_is_given() {
        let file = [gzip(b"first "), gzip(b"second")].concat();
        assert_eq!(members(&file), (vec![one("", b"first second")], Unpacked::Whole));
    }

    #[test]
    fn members_of_a_zip_archive_are_given_wherever_it_begins() {
        for before in [&b""[..], b"#!/bin/sh\nexit 0\n"] {
            let file = [before, &zip(b"packed", b"stored")].concat();
            assert_eq!(members(&file), (vec![one("d.txt", b"packed"), one("s.txt", b"stored")], Unpacked::Whole));
        }
    }

    #[test]
    fn archives_within_archives_are_opened() {
        let (found, whole) = members(&zip(&gzip(b"deep"), &zip(b"deeper", b"-")));
        assert!(found.contains(&one("d.txt", b"deep")), "{found:?}");
        assert!(found.contains(&one("s.txt!d.txt", b"deeper")), "{found:?}");
        assert_eq!(whole, Unpacked::Whole);
    }

    #[test]
    fn what_is_no_archive_or_damaged_is_passed_over() {
        for file in [&b""[..], b"P", b"PK\x05\x06", b"text", b"\x1f\x8b", b"\x1f\x8b\x08\0junk that is no gzip at all"]
        {
            assert!(members(file).0.iter().all(|(_, content)| content.is_empty()), "{file:?}");
        }
        let mut cut = gzip(&b"all of this text is whole ".repeat(4000));
        cut.truncate(cut.len() - 20);
        assert!(members(&cut).0[0].1.starts_with(b"all of this"));
    }

    #[test]
    fn a_bomb_uses_up_the_budget() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::copy(&mut std::io::repeat(0).take(BUDGET + 1), &mut encoder).expect("in memory");
        assert_eq!(members(&encoder.finish().expect("in memory")).1, Unpacked::InPart);
    }
}
