//! The zip archives that `torch.save` writes: `NAME/data.pkl`, and one entry for each storage.
//!
//! They are a small part of what a zip file can be: every entry is stored as it is, none is encrypted, and no two share a
//! byte. A reader of just that has nothing to decompress and no second place to look for anything, so it cannot be led to
//! another reading of the same file, nor to more bytes than the file has. Entries are found by name and never written
//! anywhere: a path in a name means nothing.
//!
//! Format: PKWARE's APPNOTE 6.3.10, sections 4.3 and 4.5.3, <https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT>.

use super::bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Range;

/// The entries of an archive.
#[derive(Debug)]
pub(super) struct Archive {
    entries: BTreeMap<String, Stored>,
}

/// An entry's bytes in the file.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) range: Range<u64>,
    /// CRC-32 of the bytes, as the archive has it.
    pub(super) checksum: u32,
}

const MOST_ENTRIES: u64 = 1 << 17;
const MOST_DIRECTORY: u64 = 1 << 25;
/// Length of the record at the end, and of the comment that may follow it.
const END: u64 = 22;
const MOST_COMMENT: u64 = 0xffff;

impl Archive {
    /// Reads the directory of an archive and checks it against the entries' own headers.
    ///
    /// # Errors
    /// What is wrong with which entry.
    pub(super) fn read(bytes: &Bytes) -> Result<Self, String> {
        let directory = Directory::find(bytes)?;
        let data = bytes.copy(directory.range.clone())?;
        let mut rest = Fields(&data);
        let mut entries = BTreeMap::new();
        let mut taken = Vec::new();
        for _ in 0..directory.entries {
            let entry = Entry::read(&mut rest)?;
            let (name, whole, stored) = entry.locate(bytes, directory.range.start)?;
            taken.push(whole);
            if entries.insert(name.clone(), stored).is_some() {
                return Err(format!("has the entry {name:?} twice"));
            }
        }
        taken.sort_unstable_by_key(|range| range.start);
        if taken.windows(2).any(|pair| pair[1].start < pair[0].end) {
            return Err("has entries that share bytes".into());
        }
        Ok(Self { entries })
    }

    pub(super) fn get(&self, name: &str) -> Option<&Stored> {
        self.entries.get(name)
    }

    /// The part of the names before `data.pkl`.
    ///
    /// # Errors
    /// If there is none, or more than one.
    pub(super) fn prefix(&self) -> Result<&str, String> {
        let prefix = |name: &'_ String| match name.strip_suffix("data.pkl") {
            Some(prefix) => prefix.is_empty() || prefix.find('/') == Some(prefix.len() - 1),
            None => false,
        };
        let mut found = self.entries.keys().filter(|name| prefix(name));
        match (found.next(), found.next()) {
            (Some(name), None) => Ok(&name[..name.len() - "data.pkl".len()]),
            (None, _) => Err("is a zip archive without data.pkl: not one that torch.save wrote".into()),
            (Some(a), Some(b)) => Err(format!("has two values, {a:?} and {b:?}")),
        }
    }
}

/// Whether these bytes have the CRC-32 that the archive has for them.
///
/// # Errors
/// Both sums.
pub(super) fn check(bytes: &Bytes, name: &str, stored: &Stored) -> Result<(), String> {
    let mut hasher = crc32fast::Hasher::new();
    bytes.pieces(stored.range.clone(), |piece| {
        hasher.update(piece);
        Ok(())
    })?;
    let sum = hasher.finalize();
    match sum == stored.checksum {
        true => Ok(()),
        false => Err(format!(
            "is damaged: {name} has CRC-32 {sum:08x}, the archive says {:08x}; fetch it again",
            stored.checksum
        )),
    }
}

/// Where the directory lies.
struct Directory {
    range: Range<u64>,
    entries: u64,
}

impl Directory {
    fn find(bytes: &Bytes) -> Result<Self, String> {
        let length = bytes.length();
        let cut = || "is a zip archive without its end: not fetched completely?".to_owned();
        let start = length.saturating_sub(END + MOST_COMMENT);
        let tail = bytes.copy(start..length)?;
        // The last record whose comment ends with the file.
        let at = (0..tail.len().saturating_sub(END as usize - 1)).rev().find(|&at| {
            let comment = [tail[at + 20], tail[at + 21]];
            tail[at..].starts_with(b"PK\x05\x06")
                && at + END as usize + usize::from(u16::from_le_bytes(comment)) == tail.len()
        });
        let at = at.ok_or_else(cut)?;
        let mut fields = Fields(&tail[at + 4..]);
        let (disk, first) = (fields.u16()?, fields.u16()?);
        let (here, entries) = (u64::from(fields.u16()?), u64::from(fields.u16()?));
        let (size, offset) = (u64::from(fields.u32()?), u64::from(fields.u32()?));
        let end = start + at as u64;
        let large = entries == 0xffff || size == 0xffff_ffff || offset == 0xffff_ffff;
        let (here, entries, size, offset, end) = match large {
            true => Self::large(bytes, end)?,
            false => (here, entries, size, offset, end),
        };
        if (disk, first) != (0, 0) || here != entries {
            return Err("is a part of a zip archive of several files".into());
        }
        if entries > MOST_ENTRIES || size > MOST_DIRECTORY {
            return Err(format!("has {entries} entries in {size} bytes, at most {MOST_ENTRIES} are read"));
        }
        match offset.checked_add(size).is_some_and(|after| after <= end) {
            true => Ok(Self { range: offset..offset + size, entries }),
            false => Err(format!("has its directory of {size} bytes at byte {offset}, beyond its end at {end}")),
        }
    }

    /// Entries here and in all, size and place of the directory, and where it has to end: from the 64-bit record that a
    /// pointer in front of `end` names.
    fn large(bytes: &Bytes, end: u64) -> Result<(u64, u64, u64, u64, u64), String> {
        let refuse = || "has no 64-bit end where its directory needs one".to_owned();
        let pointer = bytes.copy(end.checked_sub(20).ok_or_else(refuse)?..end)?;
        let mut fields = Fields(pointer.strip_prefix(b"PK\x06\x07").ok_or_else(refuse)?);
        fields.u32()?;
        let at = fields.u64()?;
        let record = bytes.copy(at..at.checked_add(56).filter(|&stop| stop <= end - 20).ok_or_else(refuse)?)?;
        let mut fields = Fields(record.strip_prefix(b"PK\x06\x06").ok_or_else(refuse)?);
        fields.take(20)?;
        Ok((fields.u64()?, fields.u64()?, fields.u64()?, fields.u64()?, at))
    }
}

/// What the directory says of an entry.
struct Entry {
    name: Vec<u8>,
    flags: u16,
    method: u16,
    checksum: u32,
    packed: u64,
    size: u64,
    header: u64,
}

impl Entry {
    fn read(rest: &mut Fields<'_>) -> Result<Self, String> {
        if rest.take(4)? != b"PK\x01\x02" {
            return Err("has a directory with fewer entries than it says".into());
        }
        rest.take(4)?;
        let (flags, method) = (rest.u16()?, rest.u16()?);
        rest.take(4)?;
        let checksum = rest.u32()?;
        let (mut packed, mut size) = (u64::from(rest.u32()?), u64::from(rest.u32()?));
        let (name, extra, comment) = (rest.u16()?, rest.u16()?, rest.u16()?);
        rest.take(8)?;
        let mut header = u64::from(rest.u32()?);
        let name = rest.take(name.into())?.to_vec();
        let mut extra = Fields(rest.take(extra.into())?);
        rest.take(comment.into())?;
        // 64-bit values stand in this order, each only if its 32-bit field is full.
        while extra.0.len() >= 4 {
            let (kind, length) = (extra.u16()?, extra.u16()?);
            let mut field = Fields(extra.take(length.into())?);
            if kind == 1 {
                for value in [&mut size, &mut packed, &mut header] {
                    if *value == 0xffff_ffff {
                        *value = field.u64()?;
                    }
                }
            }
        }
        Ok(Self { name, flags, method, checksum, packed, size, header })
    }

    /// The name, all bytes from the entry's own header to its end, and where its content lies.
    fn locate(self, bytes: &Bytes, directory: u64) -> Result<(String, Range<u64>, Stored), String> {
        let name = String::from_utf8(self.name).map_err(|_| "has an entry whose name is not UTF-8")?;
        let refuse = |what: String| format!("has the entry {name:?} {what}");
        if self.flags & 1 != 0 {
            return Err(refuse("encrypted".into()));
        }
        if self.method != 0 || self.packed != self.size {
            let (method, packed, size) = (self.method, self.packed, self.size);
            return Err(refuse(format!(
                "packed by method {method} in {packed} bytes for {size}; torch.save packs nothing"
            )));
        }
        let outside = || refuse("outside of the file".into());
        let start = self.header.checked_add(30).filter(|&end| end <= directory).ok_or_else(outside)?;
        let own = bytes.copy(self.header..start)?;
        let mut fields = Fields(own.strip_prefix(b"PK\x03\x04").ok_or_else(|| refuse("without a header".into()))?);
        fields.take(2)?;
        let (flags, method) = (fields.u16()?, fields.u16()?);
        fields.take(16)?;
        let (name_length, extra) = (u64::from(fields.u16()?), u64::from(fields.u16()?));
        let content = start + name_length + extra;
        let end = content.checked_add(self.size).filter(|&end| end <= directory).ok_or_else(outside)?;
        if flags & 1 != 0 || method != 0 || bytes.copy(start..start + name_length)? != name.as_bytes() {
            return Err(refuse("with a header that says otherwise".into()));
        }
        Ok((name, self.header..end, Stored { range: content..end, checksum: self.checksum }))
    }
}

/// Little-endian fields that follow one another.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or("has a directory that is cut short")?;
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, String> {
        let bytes = self.take(2)?;
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from(self.u16()?) | u32::from(self.u16()?) << 16)
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from(self.u32()?) | u64::from(self.u32()?) << 32)
    }
}
