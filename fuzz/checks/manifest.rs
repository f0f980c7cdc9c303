//! The record of a batch, whatever happened to its file: line by line read or told apart.

use std::io::BufReader;

use tweedie::batch::{Content, Lines, Record};

/// Reads `data` as a manifest.
/// # Panics
/// If reading does, if bytes are lost between the lines, or if a record does not survive being written again.
pub(crate) fn check(data: &[u8]) {
    let mut end = 0;
    // A small buffer, so that lines cross its border.
    for line in Lines::new(BufReader::with_capacity(16, data)) {
        let line = line.expect("bytes in memory can be read");
        // Between two lines there is nothing but empty ones.
        assert!(line.offset >= end && line.length > 0);
        assert!(data[end as usize..line.offset as usize].iter().all(u8::is_ascii_whitespace));
        end = line.offset + line.length;
        assert!(end <= data.len() as u64);
        assert_eq!(line.content == Content::Torn, data[end as usize - 1] != b'\n');
        if let Content::Record(record) = line.content {
            // A float may lose its last bit on the way through text.
            let record = Box::new(Record { seconds: 0.0, residual: None, ..*record });
            let text = serde_json::to_string(&record).expect("a record is text") + "\n";
            let again = Lines::new(text.as_bytes()).next().expect("a line").expect("bytes in memory can be read");
            assert_eq!(again.content, Content::Record(record));
        }
    }
    assert!(data[end as usize..].iter().all(u8::is_ascii_whitespace));
}
