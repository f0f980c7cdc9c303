//! EXIF in the directory of a TIFF file: there the tags stand among those of the pixels, so that they are taken out
//! into a block of their own, and put back.
//!
//! Tags that describe the photo are kept, those that describe the stored pixels are not. What a maker's note points at
//! inside of itself is known to its maker alone: the note keeps its bytes, but no longer its place.

use super::metadata::MAX_BLOCK;

const HEADER: usize = 8;
const ENTRY: usize = 12;
/// More is no directory.
const MOST_ENTRIES: usize = 1024;

const EXIF: u16 = 0x8769;
const GPS: u16 = 0x8825;
const INTEROPERABILITY: u16 = 0xA005;
const POINTERS: [u16; 3] = [EXIF, GPS, INTEROPERABILITY];
const RESOLUTION: [u16; 3] = [0x011A, 0x011B, RESOLUTION_UNIT];
const RESOLUTION_UNIT: u16 = 0x0128;
/// Name, description, maker, model, software, date, artist, computer, rating, copyright, the texts of Windows.
const DESCRIPTIVE: [u16; 16] = [
    0x010D, 0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C, 0x4746, 0x4749, 0x8298, 0x9C9B, 0x9C9C, 0x9C9D,
    0x9C9E, 0x9C9F,
];
const LONG: u16 = 4;

/// Bytes of one value of a type; `None` for a type that EXIF does not know.
fn size(kind: u16) -> Option<usize> {
    match kind {
        1 | 2 | 6 | 7 => Some(1),
        3 | 8 => Some(2),
        4 | 9 | 11 | 13 => Some(4),
        5 | 10 | 12 => Some(8),
        _ => None,
    }
}

/// Bytes of the number that a byte order turns: a fraction is two.
fn unit(kind: u16) -> usize {
    match kind {
        5 | 10 => 4,
        other => size(other).unwrap_or(1),
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    kind: u16,
    count: u32,
    /// In the order of the file it was read from.
    value: Vec<u8>,
}

/// A directory and those it points at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Directory {
    entries: Vec<Entry>,
    children: Vec<(u16, Directory)>,
}

/// A file whose numbers have a byte order.
#[derive(Clone, Copy)]
struct Reader<'a> {
    bytes: &'a [u8],
    is_big_endian: bool,
}

impl<'a> Reader<'a> {
    /// `None` unless it begins as a TIFF structure of 32-bit offsets.
    fn new(bytes: &'a [u8]) -> Option<Self> {
        match bytes.get(..4)? {
            b"II*\0" => Some(Self { bytes, is_big_endian: false }),
            b"MM\0*" => Some(Self { bytes, is_big_endian: true }),
            _ => None,
        }
    }

    fn u16(self, at: usize) -> Option<u16> {
        let bytes = self.bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if self.is_big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn u32(self, at: usize) -> Option<u32> {
        let bytes = self.bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if self.is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn first(self) -> Option<usize> {
        self.u32(4).map(|at| at as usize)
    }

    /// The tags of the directory at `at`, and where their entries begin.
    fn tags(self, at: usize) -> impl Iterator<Item = (u16, usize)> {
        let count = self.u16(at).map_or(0, usize::from).min(MOST_ENTRIES);
        (0..count).map_while(move |i| {
            let at = at.checked_add(2 + i * ENTRY)?;
            Some((self.u16(at)?, at))
        })
    }

    /// The entries of the directory at `at` that are `wanted` and whole; what is not is left out.
    fn entries(self, at: usize, wanted: impl Fn(u16) -> bool) -> Vec<Entry> {
        let mut total = 0;
        let mut entry = |(tag, at): (u16, usize)| {
            let (kind, count) = (self.u16(at + 2)?, self.u32(at + 4)?);
            let length = size(kind)?.checked_mul(count as usize)?;
            let from = if length <= 4 { at + 8 } else { self.u32(at + 8)? as usize };
            let value = self.bytes.get(from..from.checked_add(length)?)?;
            // Entries may share their values; a small file must not become a large block.
            total += length;
            (total <= MAX_BLOCK).then(|| Entry { tag, kind, count, value: value.to_vec() })
        };
        self.tags(at).filter(|&(tag, _)| wanted(tag)).filter_map(&mut entry).collect()
    }

    /// The directory at `at` with those of `children` that it points at; each of these has the next ones. Of the first
    /// one only what describes the photo is wanted.
    fn directory(self, at: usize, is_first: bool, children: &[(u16, &[u16])]) -> Directory {
        // In a file the pixels, the profile and packets stand beside, which are no part of the block and of its size.
        let is_described = |tag| DESCRIPTIVE.contains(&tag) || RESOLUTION.contains(&tag);
        let (pointers, entries): (Vec<_>, Vec<_>) = self
            .entries(at, |tag| !is_first || is_described(tag) || POINTERS.contains(&tag))
            .into_iter()
            .partition(|entry| POINTERS.contains(&entry.tag));
        let children = children.iter().filter_map(|&(tag, below)| {
            let pointer = pointers.iter().find(|entry| entry.tag == tag && [LONG, 13].contains(&entry.kind))?;
            let at = self.number(pointer)? as usize;
            let below: Vec<(u16, &[u16])> = below.iter().map(|&tag| (tag, &[][..])).collect();
            let child = self.directory(at, false, &below);
            (!child.entries.is_empty()).then_some((tag, child))
        });
        Directory { entries, children: children.collect() }
    }

    fn number(self, entry: &Entry) -> Option<u32> {
        let bytes: [u8; 4] = entry.value.get(..4)?.try_into().ok()?;
        Some(if self.is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    /// What the first directory says of the photo.
    fn description(self) -> Option<Directory> {
        let mut directory = self.directory(self.first()?, true, &[(EXIF, &[INTEROPERABILITY]), (GPS, &[])]);
        // Without a unit the resolution is the shape of a pixel, and every writer puts a square one.
        let inch = |entry: &Entry| entry.tag == RESOLUTION_UNIT && !matches!(entry.value[..], [1, 0] | [0, 1]);
        let has_unit = directory.entries.iter().any(inch);
        directory.entries.retain(|entry| has_unit || !RESOLUTION.contains(&entry.tag));
        (!directory.entries.is_empty() || !directory.children.is_empty()).then_some(directory)
    }
}

impl Directory {
    fn swap(&mut self) {
        for entry in &mut self.entries {
            entry.value.chunks_exact_mut(unit(entry.kind)).for_each(<[u8]>::reverse);
        }
        self.children.iter_mut().for_each(|(_, child)| child.swap());
    }

    /// Appends the directory and all below it to a structure, with entries of that structure's `own` as they are; where
    /// it begins in it.
    ///
    /// `None` if the structure becomes too long for its offsets.
    fn append(mut self, own: Vec<(u16, [u8; ENTRY])>, out: &mut Vec<u8>, is_big_endian: bool) -> Option<u32> {
        let two = |value: u16| if is_big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        let four = |value: u32| if is_big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        for (tag, child) in std::mem::take(&mut self.children) {
            let at = child.append(Vec::new(), out, is_big_endian)?;
            self.entries.push(Entry { tag, kind: LONG, count: 1, value: four(at).to_vec() });
        }
        self.entries.sort_by_key(|entry| entry.tag);
        self.entries.dedup_by_key(|entry| entry.tag);
        let mut table = own;
        for entry in &self.entries {
            let mut value = [0; 4];
            if entry.value.len() <= 4 {
                value[..entry.value.len()].copy_from_slice(&entry.value);
            } else {
                even(out);
                value = four(u32::try_from(out.len()).ok()?);
                out.extend_from_slice(&entry.value);
            }
            let mut raw = [0; ENTRY];
            raw[..2].copy_from_slice(&two(entry.tag));
            raw[2..4].copy_from_slice(&two(entry.kind));
            raw[4..8].copy_from_slice(&four(entry.count));
            raw[8..].copy_from_slice(&value);
            table.push((entry.tag, raw));
        }
        // The format wants them sorted.
        table.sort_by_key(|(tag, _)| *tag);
        even(out);
        let at = u32::try_from(out.len()).ok()?;
        out.extend(two(table.len() as u16));
        table.iter().for_each(|(_, raw)| out.extend(raw));
        out.extend(four(0));
        Some(at)
    }
}

fn even(out: &mut Vec<u8>) {
    if out.len() % 2 == 1 {
        out.push(0);
    }
}

/// The block of EXIF that a TIFF file's first directory makes; `None` if it says nothing of the photo.
pub(super) fn exif_of_tiff(tiff: &[u8]) -> Option<Vec<u8>> {
    let reader = Reader::new(tiff)?;
    let directory = reader.description()?;
    let mut block = tiff[..HEADER].to_vec();
    let first = directory.append(Vec::new(), &mut block, reader.is_big_endian)?;
    let first = if reader.is_big_endian { first.to_be_bytes() } else { first.to_le_bytes() };
    block[4..HEADER].copy_from_slice(&first);
    (block.len() <= MAX_BLOCK).then_some(block)
}

/// Puts what a block of EXIF says of the photo into the first directory of a TIFF file; without any, nothing changes.
pub(super) fn put_exif(tiff: &mut Vec<u8>, exif: &[u8]) {
    let (Some(reader), Some(block)) = (Reader::new(tiff), Reader::new(exif)) else { return };
    let (Some(first), Some(mut described)) = (reader.first(), block.description()) else { return };
    if block.is_big_endian != reader.is_big_endian {
        described.swap();
    }
    // What the file's own entries point at stays where it is, whatever its length.
    let is_described = |tag| {
        let mut tags =
            described.entries.iter().map(|entry| entry.tag).chain(described.children.iter().map(|child| child.0));
        tags.any(|other| other == tag)
    };
    let own = reader.tags(first).filter(|&(tag, _)| !is_described(tag));
    let own = own.filter_map(|(tag, at)| Some((tag, tiff.get(at..at + ENTRY)?.try_into().ok()?))).collect();
    let is_big_endian = reader.is_big_endian;
    let length = tiff.len();
    match described.append(own, tiff, is_big_endian) {
        Some(at) => tiff[4..HEADER].copy_from_slice(&if is_big_endian { at.to_be_bytes() } else { at.to_le_bytes() }),
        None => tiff.truncate(length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: u16 = 3;

    /// A little-endian structure: a maker of more than four bytes, a width, a position, an exposure of 1/60 s.
    fn structure() -> Vec<u8> {
        let mut out = b"II*\0\x08\0\0\0".to_vec();
        let entry = |out: &mut Vec<u8>, tag: u16, kind: u16, count: u32, value: u32| {
            out.extend(tag.to_le_bytes());
            out.extend(kind.to_le_bytes());
            out.extend(count.to_le_bytes());
            out.extend(value.to_le_bytes());
        };
        out.extend(4u16.to_le_bytes());
        entry(&mut out, 0x0100, SHORT, 1, 7);
        entry(&mut out, 0x010F, 2, 8, 98);
        entry(&mut out, EXIF, LONG, 1, 62);
        entry(&mut out, GPS, LONG, 1, 80);
        out.extend([0; 4]);
        out.extend(1u16.to_le_bytes());
        entry(&mut out, 0x829A, 5, 1, 106);
        out.extend([0; 4]);
        out.extend(1u16.to_le_bytes());
        entry(&mut out, 0, 1, 4, u32::from_le_bytes([2, 3, 0, 0]));
        out.extend([0; 4]);
        out.extend(b"Cameras\0");
        out.extend([1u32, 60].map(u32::to_le_bytes).concat());
        out
    }

    #[test]
    fn what_describes_the_photo_is_taken_and_the_size_of_the_pixels_is_not() {
        let tiff = structure();
        assert_eq!(tiff.len(), 114);
        let block = exif_of_tiff(&tiff).unwrap();
        let found = Reader::new(&block).unwrap().description().unwrap();
        assert_eq!(found, Reader::new(&tiff).unwrap().description().unwrap());
        assert_eq!(found.entries, [Entry { tag: 0x010F, kind: 2, count: 8, value: b"Cameras\0".to_vec() }]);
        let exposure = Entry { tag: 0x829A, kind: 5, count: 1, value: [1u32, 60].map(u32::to_le_bytes).concat() };
        assert_eq!(found.children[0].1.entries, [exposure]);
        assert_eq!(found.children[1].1.entries[0].value, [2, 3, 0, 0]);
    }

    #[test]
    fn a_block_of_the_other_byte_order_is_put_into_a_file_whose_own_tags_stay() {
        let mut block = Reader::new(&structure()).unwrap().description().unwrap();
        block.swap();
        let mut exif = b"MM\0*\0\0\0\0".to_vec();
        let first = block.append(Vec::new(), &mut exif, true).unwrap();
        exif[4..8].copy_from_slice(&first.to_be_bytes());

        // A file of one row with no tag but its width and another maker.
        let mut tiff =
            b"II*\0\x08\0\0\0\x02\0\0\x01\x03\0\x01\0\0\0\x07\0\0\0\x0f\x01\x02\0\x02\0\0\0X\0\0\0\0\0\0\0".to_vec();
        put_exif(&mut tiff, &exif);
        let reader = Reader::new(&tiff).unwrap();
        assert_eq!(reader.description(), Reader::new(&structure()).unwrap().description());
        let entries = reader.entries(reader.first().unwrap(), |_| true);
        assert_eq!(entries[0], Entry { tag: 0x0100, kind: SHORT, count: 1, value: vec![7, 0] });
        assert!(entries.windows(2).all(|pair| pair[0].tag < pair[1].tag));
    }

    /// Fault 4.
    #[test]
    fn no_prefix_and_no_wrong_byte_panics() {
        let whole = structure();
        for length in 0..whole.len() {
            let _ = exif_of_tiff(&whole[..length]);
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut wrong = whole.clone();
                wrong[length] = value;
                let _ = exif_of_tiff(&wrong);
                put_exif(&mut whole.clone(), &wrong);
                put_exif(&mut wrong, &whole);
            }
        }
    }
}
