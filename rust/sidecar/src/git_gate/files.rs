//! How is one file of a push read? As it is, what it holds if it is an archive, and the object that it names if it is a
//! pointer of Git LFS; all in bounded memory.

use std::fs::{self, File};
use std::io::{Cursor, Read};
use std::path::Path;

use super::Outcome;
use super::lfs::{LONGEST, Pointer};
use super::pieces::cannot_write;
use super::unpack::{Source, Unpacked, Unpacker};

/// A larger file is put on disk rather than into memory, where an archive's directory can be looked for at its end.
const IN_MEMORY: u64 = 4 << 20;

/// Is given the file itself as `None`, and each member of an archive in it.
pub type Each<'a> = dyn FnMut(Option<&str>, &mut dyn Read) -> Outcome<()> + 'a;

/// What there was to read.
pub struct Opened {
    pub unpacked: Unpacked,
    /// The object that the file stands for, and whether it was there to be read.
    pub object: Option<(Pointer, bool)>,
}

/// Opens a file of `size` bytes; an object of Git LFS in its place only up to `largest`. `spool` is a path that may be used.
pub fn open(size: u64, content: &mut dyn Read, spool: &Path, largest: u64, each: &mut Each<'_>) -> Outcome<Opened> {
    if size <= IN_MEMORY {
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        content.read_to_end(&mut bytes).map_err(cannot_write)?;
        if let Some(pointer) = Some(&bytes).filter(|_| size < LONGEST).and_then(|bytes| Pointer::parse(bytes)) {
            each(None, &mut bytes.as_slice())?;
            let object = if pointer.size <= largest { pointer.object()? } else { None };
            let here = object.is_some();
            let unpacked = object.map_or(Ok(Unpacked::Whole), |mut file| parts(&mut file, each))?;
            return Ok(Opened { unpacked, object: Some((pointer, here)) });
        }
        return parts(&mut Cursor::new(bytes), each).map(|unpacked| Opened { unpacked, object: None });
    }
    let mut file = File::options().read(true).write(true).create_new(true).open(spool).map_err(cannot_write)?;
    // Without a name at once: it goes away however this ends.
    fs::remove_file(spool).map_err(cannot_write)?;
    std::io::copy(content, &mut file).map_err(cannot_write)?;
    parts(&mut file, each).map(|unpacked| Opened { unpacked, object: None })
}

fn parts(source: &mut dyn Source, each: &mut Each<'_>) -> Outcome<Unpacked> {
    source.rewind().map_err(cannot_write)?;
    each(None, &mut { &mut *source })?;
    source.rewind().map_err(cannot_write)?;
    let mut member = |path: &str, content: &mut dyn Read| each(Some(path), content);
    Unpacker::new(&mut member).open(source, "", 0)
}
