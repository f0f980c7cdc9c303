//! Sparse matrices: their products, and the files that hold them.

use std::io::{Cursor, Read};
use std::path::Path;

use candle_core::WithDType;
use rayon::prelude::*;

use crate::map::Real;

/// Most rows or columns of a matrix: a bound on what a file can make the program allocate.
const MAX_SIDE: usize = 1 << 28;
/// Most entries of a matrix; positions are kept in 32 bits.
const MAX_ENTRIES: usize = 1 << 30;
/// Longest header of an array; those of one or two dimensions take 128 bytes.
const MAX_HEADER: usize = 4096;
/// Rows of a product that one thread computes at a time.
const CHUNK: usize = 1024;

/// What is wrong with a matrix: lower case, no full stop.
pub(crate) type Result<T> = std::result::Result<T, String>;

/// A matrix row by row: row `i` has the entries `starts[i]..starts[i + 1]`.
#[derive(Clone, Debug)]
pub(crate) struct Sparse<V> {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    starts: Vec<u32>,
    indices: Vec<u32>,
    values: Vec<V>,
}

impl Sparse<f64> {
    /// Of triplets (row, column, value), counted from zero; equal positions add up.
    pub(crate) fn from_entries(
        (rows, columns): (usize, usize),
        entries: impl ExactSizeIterator<Item = (usize, usize, f64)> + Clone,
    ) -> Result<Self> {
        check_size(rows, columns, entries.len())?;
        let mut starts = vec![0; rows + 1];
        for (number, (row, column, value)) in entries.clone().enumerate() {
            let number = number + 1;
            if row >= rows || column >= columns {
                let place = format!("row {row}, column {column}");
                return Err(format!("entry {number} is in {place} of a {rows}x{columns} matrix, counted from 0"));
            }
            if !value.is_finite() {
                return Err(format!("entry {number} is {value}, expected a finite number"));
            }
            starts[row + 1] += 1;
        }
        (1..=rows).for_each(|row| starts[row] += starts[row - 1]);
        let mut next = starts.clone();
        let (mut indices, mut values) = (vec![0; entries.len()], vec![0.0; entries.len()]);
        for (row, column, value) in entries {
            let position = next[row] as usize;
            (indices[position], values[position]) = (column as u32, value);
            next[row] += 1;
        }
        Ok(Self { rows, columns, starts, indices, values })
    }

    /// With values of another type.
    ///
    /// # Errors
    /// If a value is too large for it.
    pub(crate) fn cast<V: Real>(&self) -> Result<Sparse<V>> {
        let cast = |&value: &f64| match V::of(value) {
            cast if cast.is_finite() => Ok(cast),
            _ => Err(format!("a value of {value:e} is beyond the range of {:?}", V::DTYPE)),
        };
        let values = self.values.iter().map(cast).collect::<Result<_>>()?;
        let &Self { rows, columns, .. } = self;
        Ok(Sparse { rows, columns, starts: self.starts.clone(), indices: self.indices.clone(), values })
    }
}

impl<V: Real> Sparse<V> {
    /// The transpose, row by row again; entries of a row are in the order of their columns.
    pub(crate) fn transposed(&self) -> Self {
        let mut starts = vec![0u32; self.columns + 1];
        self.indices.iter().for_each(|&column| starts[column as usize + 1] += 1);
        (1..=self.columns).for_each(|column| starts[column] += starts[column - 1]);
        let mut next = starts.clone();
        let (mut indices, mut values) = (vec![0; self.indices.len()], vec![V::zero(); self.indices.len()]);
        for (row, range) in self.starts.windows(2).enumerate() {
            for entry in range[0] as usize..range[1] as usize {
                let slot = &mut next[self.indices[entry] as usize];
                (indices[*slot as usize], values[*slot as usize]) = (row as u32, self.values[entry]);
                *slot += 1;
            }
        }
        Self { rows: self.columns, columns: self.rows, starts, indices, values }
    }

    /// `y = A x`; each number is one sum, in f64 and in the order of the entries.
    pub(crate) fn multiply<T: Real>(&self, x: &[T], y: &mut [T]) {
        y.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, y)| {
            let starts = &self.starts[chunk * CHUNK..][..y.len() + 1];
            for (y, row) in y.iter_mut().zip(starts.windows(2)) {
                let entries = row[0] as usize..row[1] as usize;
                let entries = self.indices[entries.clone()].iter().zip(&self.values[entries]);
                *y = T::of(entries.map(|(&column, &value)| wide(value) * wide(x[column as usize])).sum());
            }
        });
    }
}

fn wide<T: Real>(value: T) -> f64 {
    WithDType::to_f64(value)
}

fn check_size(rows: usize, columns: usize, entries: usize) -> Result<()> {
    if rows == 0 || columns == 0 || rows > MAX_SIDE || columns > MAX_SIDE {
        return Err(format!("matrix is {rows}x{columns}, expected sides of 1 to {MAX_SIDE}"));
    }
    match entries > MAX_ENTRIES {
        true => Err(format!("matrix has {entries} entries, expected at most {MAX_ENTRIES}")),
        false => Ok(()),
    }
}

/// Reads a file by its ending: `.mtx` or `.npz`.
pub(crate) fn read(path: &Path) -> Result<Sparse<f64>> {
    let format: fn(&[u8]) -> Result<Sparse<f64>> = match path.extension().and_then(|ending| ending.to_str()) {
        Some("mtx") => matrix_market,
        Some("npz") => scipy,
        _ => return Err("expected a name that ends in .mtx or .npz".into()),
    };
    match std::fs::metadata(path) {
        Ok(about) if !about.is_file() => Err("not a regular file".into()),
        Ok(_) => format(&std::fs::read(path).map_err(|error| error.to_string())?),
        Err(error) => Err(error.to_string()),
    }
}

/// A coordinate file of Matrix Market: a banner, comments, `rows columns entries`, then one entry a line, counted from one.
///
/// Boisvert, Pozo, Remington (1996), The Matrix Market exchange formats, NISTIR 5935.
fn matrix_market(bytes: &[u8]) -> Result<Sparse<f64>> {
    let text = std::str::from_utf8(bytes).map_err(|_| "not a Matrix Market file: it is no text".to_owned())?;
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    let banner = lines.next().map_or("", |(_, line)| line).to_ascii_lowercase();
    let words: Vec<&str> = banner.split_ascii_whitespace().collect();
    let ["%%matrixmarket", "matrix", layout, field, symmetry] = words[..] else {
        return Err("not a Matrix Market file: its first line is no `%%MatrixMarket matrix ..`".into());
    };
    if layout != "coordinate" {
        return Err(format!("layout is `{layout}`, expected `coordinate`"));
    }
    if !["real", "integer", "pattern"].contains(&field) {
        return Err(format!("field is `{field}`, expected `real`, `integer` or `pattern`"));
    }
    if !["general", "symmetric"].contains(&symmetry) {
        return Err(format!("symmetry is `{symmetry}`, expected `general` or `symmetric`"));
    }
    let (pattern, symmetric) = (field == "pattern", symmetry == "symmetric");

    let mut lines = lines.filter(|(_, line)| !line.trim_start().starts_with('%') && !line.trim().is_empty());
    let (number, line) = lines.next().ok_or("truncated: there is no line `rows columns entries`")?;
    let sizes: Option<Vec<usize>> = line.split_ascii_whitespace().map(|word| word.parse().ok()).collect();
    let Some([rows, columns, count]) = sizes.as_deref().and_then(|sizes| <[usize; 3]>::try_from(sizes).ok()) else {
        return Err(format!("line {number} is `{}`, expected `rows columns entries`", excerpt(line)));
    };
    check_size(rows, columns, count)?;
    if symmetric && rows != columns {
        return Err(format!("matrix is symmetric and {rows}x{columns}, expected a square one"));
    }
    // The header may lie: an entry takes four bytes at least.
    let mut entries = Vec::with_capacity(count.min(bytes.len() / 4) * if symmetric { 2 } else { 1 });
    let mut found = 0;
    for (number, line) in lines {
        found += 1;
        if found > count {
            return Err(format!("line {number} holds an entry beyond the {count} of the header"));
        }
        let (row, column, value) = entry(line, pattern).ok_or_else(|| {
            let expected = if pattern { "row column" } else { "row column value" };
            format!("line {number} is `{}`, expected `{expected}`", excerpt(line))
        })?;
        if !(1..=rows).contains(&row) || !(1..=columns).contains(&column) {
            return Err(format!("line {number} is in row {row}, column {column} of a {rows}x{columns} matrix"));
        }
        if !value.is_finite() {
            return Err(format!("line {number} has the value {value}, expected a finite number"));
        }
        entries.push((row - 1, column - 1, value));
        if symmetric && column > row {
            return Err(format!("line {number} is above the diagonal of a symmetric matrix, expected the lower half"));
        }
        if symmetric && row != column {
            entries.push((column - 1, row - 1, value));
        }
    }
    if found < count {
        return Err(format!("truncated: {found} entries, expected the {count} of the header"));
    }
    Sparse::from_entries((rows, columns), entries.iter().copied())
}

fn entry(line: &str, pattern: bool) -> Option<(usize, usize, f64)> {
    let mut words = line.split_ascii_whitespace();
    let (row, column) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let value = if pattern { 1.0 } else { words.next()?.parse().ok()? };
    words.next().is_none().then_some((row, column, value))
}

/// The start of a line, for an error.
fn excerpt(line: &str) -> String {
    line.chars().take(40).collect()
}

/// A matrix as `scipy.sparse.save_npz` writes it: a zip archive of arrays, in the formats `csr`, `csc` and `coo`.
///
/// <https://docs.scipy.org/doc/scipy/reference/generated/scipy.sparse.save_npz.html>
fn scipy(bytes: &[u8]) -> Result<Sparse<f64>> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|error| format!("not an npz file: {error}"))?;
    let mut array = |name: &str| -> Result<Array> {
        let member = archive.by_name(&format!("{name}.npy")).map_err(|error| format!("{name}: {error}"))?;
        Array::read(member).map_err(|error| format!("{name}: {error}"))
    };
    let format = array("format")?.text()?;
    let shape = array("shape")?.integers("shape", 2, MAX_SIDE)?;
    let (rows, columns) = (shape[0], shape[1]);
    let data = array("data")?;
    let count = data.length;
    check_size(rows, columns, count)?;
    let values = data.numbers()?;
    match &format[..] {
        "coo" => {
            let row = array("row")?.integers("row", count, rows - 1)?;
            let column = array("col")?.integers("col", count, columns - 1)?;
            let entries = (0..count).map(|entry| (row[entry], column[entry], values[entry]));
            Sparse::from_entries((rows, columns), entries)
        }
        "csr" | "csc" => {
            // The columns of a matrix are the rows of its transpose.
            let by_row = format == "csr";
            let (outer, inner) = if by_row { (rows, columns) } else { (columns, rows) };
            let starts = array("indptr")?.integers("indptr", outer + 1, count)?;
            if starts[0] != 0 || starts[outer] != count || starts.windows(2).any(|pair| pair[0] > pair[1]) {
                return Err(format!("indptr is not a rising sequence from 0 to the {count} entries"));
            }
            let indices = array("indices")?.integers("indices", count, inner - 1)?;
            let mut lines = Vec::with_capacity(count);
            for (line, pair) in starts.windows(2).enumerate() {
                lines.resize(pair[1], line);
            }
            let entries = (0..count).map(|entry| match by_row {
                true => (lines[entry], indices[entry], values[entry]),
                false => (indices[entry], lines[entry], values[entry]),
            });
            Sparse::from_entries((rows, columns), entries)
        }
        other => Err(format!("format is `{other}`, expected `csr`, `csc` or `coo`")),
    }
}

/// An array of NumPy's format, versions 1 to 3: a magic number, a header that is a Python dictionary, and numbers.
///
/// <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>
struct Array {
    /// Kind and size of an element, as `i4`, `f8`, `S3`, without the order of bytes.
    kind: String,
    big_endian: bool,
    length: usize,
    bytes: Vec<u8>,
}

impl Array {
    fn read(mut file: impl Read) -> Result<Self> {
        let truncated = |_| "truncated or damaged".to_owned();
        let mut start = [0; 8];
        file.read_exact(&mut start).map_err(truncated)?;
        if start[..6] != *b"\x93NUMPY" || !(1..=3).contains(&start[6]) {
            return Err("not an array of NumPy, version 1 to 3".into());
        }
        let mut size = [0; 4];
        file.read_exact(&mut size[..if start[6] == 1 { 2 } else { 4 }]).map_err(truncated)?;
        let size = u32::from_le_bytes(size) as usize;
        if size > MAX_HEADER {
            return Err(format!("header of {size} bytes, expected at most {MAX_HEADER}"));
        }
        let mut header = vec![0; size];
        file.read_exact(&mut header).map_err(truncated)?;
        let header = String::from_utf8_lossy(&header);
        let unreadable = || format!("header `{}` is not that of an array with an order of bytes", excerpt(&header));
        let descr = after(&header, "descr").and_then(|rest| rest.strip_prefix('\'')).ok_or_else(unreadable)?;
        let descr = descr.split('\'').next().ok_or_else(unreadable)?;
        let shape = after(&header, "shape").and_then(|rest| rest.strip_prefix('(')).ok_or_else(unreadable)?;
        let shape = shape.split_once(')').ok_or_else(unreadable)?.0;
        let sides = shape.split(',').map(str::trim).filter(|side| !side.is_empty());
        let sides: Vec<usize> = sides.map(|side| side.parse().ok()).collect::<Option<_>>().ok_or_else(unreadable)?;
        let length = match sides[..] {
            [] => 1,
            [length] => length,
            _ => return Err(format!("an array of {} dimensions, expected 1", sides.len())),
        };
        let order = descr.chars().next().filter(|order| "<>|".contains(*order)).ok_or_else(unreadable)?;
        let kind = descr[1..].to_owned();
        let element = match kind.as_bytes() {
            b"i4" | b"f4" => 4,
            b"i8" | b"f8" => 8,
            [b'S', b'0'..=b'9'] => usize::from(kind.as_bytes()[1] - b'0'),
            [b'U', b'0'..=b'9'] => 4 * usize::from(kind.as_bytes()[1] - b'0'),
            _ => return Err(format!("elements are `{descr}`, expected i4, i8, f4 or f8")),
        };
        if length > MAX_ENTRIES {
            return Err(format!("{length} elements, expected at most {MAX_ENTRIES}"));
        }
        // What is read grows with what is there, not with what the header promises; one byte more shows an excess.
        let size = length * element;
        let mut bytes = Vec::new();
        file.take(size as u64 + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        match bytes.len().cmp(&size) {
            std::cmp::Ordering::Less => {
                Err(format!("truncated: {} bytes, expected {size} for {length} elements", bytes.len()))
            }
            std::cmp::Ordering::Greater => Err(format!("longer than the {size} bytes of {length} elements")),
            std::cmp::Ordering::Equal => Ok(Self { kind, big_endian: order == '>', length, bytes }),
        }
    }

    fn elements<const N: usize>(&self) -> impl Iterator<Item = [u8; N]> {
        let big_endian = self.big_endian;
        self.bytes.as_chunks::<N>().0.iter().map(move |&element| {
            let mut element = element;
            if big_endian {
                element.reverse();
            }
            element
        })
    }

    fn text(&self) -> Result<String> {
        match self.kind.starts_with(['S', 'U']) {
            // ASCII in one byte or in four; the others are zero.
            true => Ok(self.bytes.iter().filter(|&&byte| byte != 0).map(|&byte| char::from(byte)).collect()),
            false => Err(format!("format: elements are {}, expected a text", self.kind)),
        }
    }

    fn numbers(&self) -> Result<Vec<f64>> {
        match &self.kind[..] {
            "f4" => Ok(self.elements().map(|bytes| f64::from(f32::from_le_bytes(bytes))).collect()),
            "f8" => Ok(self.elements().map(f64::from_le_bytes).collect()),
            "i4" => Ok(self.elements().map(|bytes| f64::from(i32::from_le_bytes(bytes))).collect()),
            "i8" => Ok(self.elements().map(|bytes| i64::from_le_bytes(bytes) as f64).collect()),
            kind => Err(format!("data: elements are {kind}, expected numbers")),
        }
    }

    /// As many numbers from 0 to `largest` as the others need.
    fn integers(&self, name: &str, length: usize, largest: usize) -> Result<Vec<usize>> {
        if self.length != length {
            return Err(format!("{name}: {} elements, expected {length}", self.length));
        }
        let check = |value: i64| match usize::try_from(value) {
            Ok(value) if value <= largest => Ok(value),
            _ => Err(format!("{name}: {value} is out of range, expected 0 to {largest}")),
        };
        match &self.kind[..] {
            "i4" => self.elements().map(|bytes| check(i32::from_le_bytes(bytes).into())).collect(),
            "i8" => self.elements().map(|bytes| check(i64::from_le_bytes(bytes))).collect(),
            kind => Err(format!("{name}: elements are {kind}, expected i4 or i8")),
        }
    }
}

/// What follows `'key':` in a header.
fn after<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = header.split_once(&format!("'{key}'"))?;
    Some(rest.trim_start().strip_prefix(':')?.trim_start())
}
