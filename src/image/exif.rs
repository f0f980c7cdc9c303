//! EXIF blocks, patched in place: everything that is not touched keeps its bytes and its offsets.
//!
//! Every read is bounds-checked and every walk has a fixed number of steps, so a hostile block costs nothing.

/// A photo has two directories (itself and its thumbnail); a longer chain is a loop or nonsense.
const MAX_DIRECTORIES: usize = 16;

const IMAGE_WIDTH: u16 = 0x0100;
const IMAGE_HEIGHT: u16 = 0x0101;
const PIXEL_WIDTH: u16 = 0xA002;
const PIXEL_HEIGHT: u16 = 0xA003;
const PHOTOMETRIC: u16 = 0x0106;
const ORIENTATION: u16 = 0x0112;
const EXIF_DIRECTORY: u16 = 0x8769;
const GPS_DIRECTORY: u16 = 0x8825;
const THUMBNAIL_OFFSET: u16 = 0x0201;
const THUMBNAIL_LENGTH: u16 = 0x0202;
const ENTRY_SIZE: usize = 12;

/// What [`make_upright`] found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// The orientation tag as it was.
    pub(super) orientation: Option<u32>,
    /// The chain of directories came back to itself.
    pub(super) is_looped: bool,
}

/// Sets the orientation to 1 and drops the thumbnail, which still shows the damage and the old orientation.
///
/// `None` if this is no EXIF block.
pub(super) fn make_upright(exif: &mut [u8]) -> Option<Findings> {
    let mut block = Block::new(exif)?;
    let first = block.first_directory()?;
    let mut findings = Findings::default();
    if let Some(entry) = block.find(first, ORIENTATION) {
        findings.orientation = block.number(entry);
        block.set_number(entry, 1);
    }
    let mut seen = vec![first];
    let mut next = block.next_directory(first);
    while let Some(directory) = next {
        if seen.contains(&directory) || seen.len() == MAX_DIRECTORIES {
            findings.is_looped = true;
            break;
        }
        seen.push(directory);
        next = block.next_directory(directory);
    }
    if !findings.is_looped {
        for &directory in &seen[1..] {
            block.erase_thumbnail(directory);
        }
    }
    block.end_chain(first);
    Some(findings)
}

/// Sets the size of the picture wherever the block repeats it.
pub(super) fn set_size(exif: &mut [u8], width: usize, height: usize) {
    let Some(mut block) = Block::new(exif) else { return };
    let Some(first) = block.first_directory() else { return };
    let inner = block.find(first, EXIF_DIRECTORY).and_then(|entry| block.number(entry)).map(|at| at as usize);
    let places = [(Some(first), IMAGE_WIDTH, width), (Some(first), IMAGE_HEIGHT, height)];
    for (directory, tag, size) in places.into_iter().chain([(inner, PIXEL_WIDTH, width), (inner, PIXEL_HEIGHT, height)])
    {
        let Some(entry) = directory.and_then(|directory| block.find(directory, tag)) else { continue };
        // Two bytes hold no size beyond 65535: such an entry says 0, unknown.
        let fits = block.u16(entry + 2) != Some(3) || size <= usize::from(u16::MAX);
        block.set_number(entry, if fits { size as u32 } else { 0 });
    }
}

/// Removes the position: the pointer to it and what it points at. Whether there was one.
pub(super) fn erase_gps(exif: &mut [u8]) -> bool {
    let Some(mut block) = Block::new(exif) else { return false };
    let Some(first) = block.first_directory() else { return false };
    let Some(entry) = block.find(first, GPS_DIRECTORY) else { return false };
    let directory = block.number(entry).map(|offset| offset as usize);
    if let Some(directory) = directory.filter(|&at| at != first) {
        block.erase_directory(directory, first);
    }
    block.remove_entry(first, entry);
    true
}

/// Makes a TIFF file of indices into a palette one of grey levels, which the `tiff` crate reads. Whether it was one.
pub(super) fn palette_to_grey(tiff: &mut [u8]) -> bool {
    let Some(mut block) = Block::new(tiff) else { return false };
    let Some(entry) = block.first_directory().and_then(|first| block.find(first, PHOTOMETRIC)) else { return false };
    let is_palette = block.number(entry) == Some(3);
    if is_palette {
        block.set_number(entry, 1);
    }
    is_palette
}

/// Whether the block says where the photo was taken.
#[cfg(test)]
fn has_gps(exif: &mut [u8]) -> bool {
    let Some(block) = Block::new(exif) else { return false };
    block.first_directory().is_some_and(|first| block.find(first, GPS_DIRECTORY).is_some())
}

/// A TIFF structure: header, directories of twelve-byte entries, values at offsets.
struct Block<'a> {
    bytes: &'a mut [u8],
    is_big_endian: bool,
}

impl<'a> Block<'a> {
    fn new(bytes: &'a mut [u8]) -> Option<Self> {
        let is_big_endian = match bytes.get(..4)? {
            b"II*\0" => false,
            b"MM\0*" => true,
            _ => return None,
        };
        Some(Self { bytes, is_big_endian })
    }

    fn u16(&self, at: usize) -> Option<u16> {
        let bytes: [u8; 2] = self.bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if self.is_big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn u32(&self, at: usize) -> Option<u32> {
        let bytes: [u8; 4] = self.bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if self.is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn put(&mut self, at: usize, big_endian: &[u8]) {
        if let Some(place) = self.bytes.get_mut(at..at + big_endian.len()) {
            place.copy_from_slice(big_endian);
            if !self.is_big_endian {
                place.reverse();
            }
        }
    }

    fn first_directory(&self) -> Option<usize> {
        let at = self.u32(4)? as usize;
        self.u16(at).map(|_| at)
    }

    /// Number of entries that lie inside the block.
    fn entries(&self, directory: usize) -> usize {
        let room = self.bytes.len().saturating_sub(directory + 2) / ENTRY_SIZE;
        self.u16(directory).map_or(0, |count| usize::from(count).min(room))
    }

    fn find(&self, directory: usize, tag: u16) -> Option<usize> {
        (0..self.entries(directory)).map(|i| directory + 2 + i * ENTRY_SIZE).find(|&entry| self.u16(entry) == Some(tag))
    }

    /// The value of an entry that holds one unsigned integer.
    fn number(&self, entry: usize) -> Option<u32> {
        match self.u16(entry + 2)? {
            1 => self.bytes.get(entry + 8).map(|&value| u32::from(value)),
            3 => self.u16(entry + 8).map(u32::from),
            4 | 13 => self.u32(entry + 8),
            _ => None,
        }
    }

    fn set_number(&mut self, entry: usize, value: u32) {
        match self.u16(entry + 2) {
            Some(1) => self.put(entry + 8, &[value as u8]),
            Some(3) => self.put(entry + 8, &(value as u16).to_be_bytes()),
            Some(4 | 13) => self.put(entry + 8, &value.to_be_bytes()),
            // An orientation of another type is read by nobody.
            _ => {}
        }
    }

    fn end_of_entries(&self, directory: usize) -> Option<usize> {
        Some(directory + 2 + usize::from(self.u16(directory)?) * ENTRY_SIZE)
    }

    fn next_directory(&self, directory: usize) -> Option<usize> {
        let next = self.u32(self.end_of_entries(directory)?)? as usize;
        (next != 0 && self.u16(next).is_some()).then_some(next)
    }

    fn end_chain(&mut self, directory: usize) {
        if let Some(at) = self.end_of_entries(directory) {
            self.put(at, &[0; 4]);
        }
    }

    fn erase_thumbnail(&mut self, directory: usize) {
        let value = |block: &Self, tag| block.find(directory, tag).and_then(|entry| block.number(entry));
        if let (Some(offset), Some(length)) = (value(self, THUMBNAIL_OFFSET), value(self, THUMBNAIL_LENGTH)) {
            self.erase(offset as usize, length as usize, &[]);
        }
    }

    /// Zeroes a range, but no byte of the header and of the `protected` ranges.
    fn erase(&mut self, at: usize, length: usize, protected: &[std::ops::Range<usize>]) {
        let end = at.saturating_add(length).min(self.bytes.len());
        for i in at.max(8)..end {
            if !protected.iter().any(|range| range.contains(&i)) {
                self.bytes[i] = 0;
            }
        }
    }

    fn extent(&self, directory: usize) -> std::ops::Range<usize> {
        directory..directory + 2 + self.entries(directory) * ENTRY_SIZE + 4
    }

    /// Zeroes a directory and the values that it points at.
    fn erase_directory(&mut self, directory: usize, first: usize) {
        let mut protected = vec![self.extent(first)];
        if let Some(exif) = self.find(first, EXIF_DIRECTORY).and_then(|entry| self.number(entry)) {
            protected.push(self.extent(exif as usize));
        }
        if protected.iter().any(|range| range.contains(&directory)) {
            return;
        }
        for i in 0..self.entries(directory) {
            let entry = directory + 2 + i * ENTRY_SIZE;
            let size = match self.u16(entry + 2) {
                Some(3 | 8) => 2,
                Some(4 | 9 | 11 | 13) => 4,
                Some(5 | 10 | 12) => 8,
                _ => 1,
            };
            // No value of a position is longer; a wrong length must not erase the rest of the block.
            let length = self.u32(entry + 4).map_or(0, |count| (count as usize).saturating_mul(size)).min(1024);
            if length > 4
                && let Some(offset) = self.u32(entry + 8)
            {
                self.erase(offset as usize, length, &protected);
            }
        }
        let extent = self.extent(directory);
        self.erase(extent.start, extent.len(), &protected);
    }

    /// Takes an entry out; those behind it move up, no value moves.
    fn remove_entry(&mut self, directory: usize, entry: usize) {
        let (Some(count), Some(end)) = (self.u16(directory), self.end_of_entries(directory)) else { return };
        let end = (end + 4).min(self.bytes.len());
        if entry + ENTRY_SIZE > end {
            return;
        }
        self.bytes.copy_within(entry + ENTRY_SIZE..end, entry);
        self.bytes[end - ENTRY_SIZE..end].fill(0);
        self.put(directory, &(count - 1).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block of the given byte order with an orientation, a GPS directory with one value, and a thumbnail.
    fn block(big_endian: bool, orientation: u16) -> Vec<u8> {
        let mut out = Vec::new();
        let u16 = |v: u16| if big_endian { v.to_be_bytes() } else { v.to_le_bytes() };
        let u32 = |v: u32| if big_endian { v.to_be_bytes() } else { v.to_le_bytes() };
        out.extend(if big_endian { *b"MM" } else { *b"II" });
        out.extend(u16(42));
        out.extend(u32(8));
        // Two entries at 8, next directory at 38.
        out.extend(u16(2));
        let entry = |out: &mut Vec<u8>, tag: u16, kind: u16, count: u32, value: [u8; 4]| {
            out.extend(u16(tag));
            out.extend(u16(kind));
            out.extend(u32(count));
            out.extend(value);
        };
        let [a, b] = u16(orientation);
        entry(&mut out, ORIENTATION, 3, 1, [a, b, 0, 0]);
        entry(&mut out, GPS_DIRECTORY, 4, 1, u32(68));
        out.extend(u32(38));
        // Thumbnail directory at 38, its image at 94.
        out.extend(u16(2));
        entry(&mut out, THUMBNAIL_OFFSET, 4, 1, u32(94));
        entry(&mut out, THUMBNAIL_LENGTH, 4, 1, u32(4));
        out.extend(u32(0));
        // GPS directory at 68, its value at 86.
        out.extend(u16(1));
        entry(&mut out, 2, 5, 1, u32(86));
        out.extend(u32(0));
        out.extend([7; 8]);
        out.extend([9; 4]);
        out
    }

    #[test]
    fn orientation_becomes_1_and_the_thumbnail_goes_in_both_byte_orders() {
        for big_endian in [false, true] {
            let mut exif = block(big_endian, 6);
            let findings = make_upright(&mut exif).unwrap();
            assert_eq!(findings, Findings { orientation: Some(6), is_looped: false });
            assert!(exif.ends_with(&[7, 7, 0, 0, 0, 0]), "{exif:?}");
            assert_eq!(&exif[34..38], [0; 4]);
            assert_eq!(make_upright(&mut exif).unwrap().orientation, Some(1));
            assert!(has_gps(&mut exif));
        }
    }

    #[test]
    fn erasing_the_position_leaves_no_byte_of_it_and_keeps_the_rest() {
        for big_endian in [false, true] {
            let mut exif = block(big_endian, 6);
            assert!(erase_gps(&mut exif));
            assert!(!has_gps(&mut exif));
            assert!(!exif.contains(&7));
            assert_eq!(make_upright(&mut exif).unwrap().orientation, Some(6));
            assert!(!erase_gps(&mut exif));
        }
    }

    /// Fault 24.
    #[test]
    fn a_directory_loop_ends() {
        let mut exif = block(false, 3);
        exif[64..68].copy_from_slice(&8u32.to_le_bytes());
        assert!(make_upright(&mut exif).unwrap().is_looped);
    }

    /// Fault 4.
    #[test]
    fn no_prefix_and_no_flipped_byte_of_a_block_panics() {
        let whole = block(true, 6);
        for length in 0..whole.len() {
            let _ = make_upright(&mut whole[..length].to_vec());
            erase_gps(&mut whole[..length].to_vec());
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut flipped = whole.clone();
                flipped[length] = value;
                let _ = make_upright(&mut flipped.clone());
                erase_gps(&mut flipped);
            }
        }
    }
}
