//! What somebody sees who looks in on a run: one HTML page that needs nothing else.
//!
//! The page is a function of the log and of the pictures beside it, so that a run that was resumed goes on with the same
//! curves, and a page can be made again from what a run has left.

mod axis;
mod curve;
mod data_uri;
mod gallery;
mod grid;
mod page;

pub use data_uri::data_uri;
pub(super) use gallery::{keep_few, write_pictures};
pub(super) use page::Page;

/// Text that means nothing to a browser but itself.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}
