//! What is written where: results to stdout, everything else to stderr, in colour if the reader wants it.

use super::failure::Failure;
use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal, unless NO_COLOR is set or TERM is dumb.
    #[default]
    Auto,
    /// Also into files and pipes.
    Always,
    /// Nowhere.
    Never,
}

/// How much is told on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verbosity {
    Quiet,
    Normal,
    Verbose,
}

/// Where messages go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Console {
    coloured: bool,
    verbosity: Verbosity,
}

impl Console {
    pub(crate) fn new(colour: Colour, verbosity: Verbosity) -> Self {
        let coloured = match colour {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => {
                std::io::stderr().is_terminal()
                    && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
                    && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
            }
        };
        Self { coloured, verbosity }
    }

    pub(crate) fn is_verbose(self) -> bool {
        self.verbosity == Verbosity::Verbose
    }

    pub(crate) fn is_quiet(self) -> bool {
        self.verbosity == Verbosity::Quiet
    }

    /// A line about the ordinary course of things.
    pub(crate) fn note(self, text: &str) {
        if !self.is_quiet() {
            self.line("", "", text);
        }
    }

    /// A line for who wants to know more.
    pub(crate) fn detail(self, text: &str) {
        if self.is_verbose() {
            self.line("", "", text);
        }
    }

    /// A line about something that works but may not be what the user meant.
    pub(crate) fn warn(self, text: &str) {
        if !self.is_quiet() {
            self.line("warning: ", "33", text);
        }
    }

    /// The end of a command that failed.
    pub(crate) fn fail(self, failure: &Failure) {
        self.line("error: ", "31", &failure.message());
        for hint in &failure.hints {
            self.line("hint: ", "36", hint);
        }
    }

    fn line(self, label: &str, colour: &str, text: &str) {
        let text = escape(text);
        // A message that cannot be delivered must not stop the work.
        let _ = if self.coloured && !label.is_empty() {
            writeln!(std::io::stderr(), "\x1b[1;{colour}m{label}\x1b[0m{text}")
        } else {
            writeln!(std::io::stderr(), "{label}{text}")
        };
    }
}

/// `text` with everything that a terminal would act on written out: control characters and the marks that turn the
/// direction of writing. File names reach the user through this only.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    let acts = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if acts(c) {
            let _ = write!(escaped, "{}", c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// `1 step`, `2 steps`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// A number of bytes as people say it.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A length of time as people say it.
pub(crate) fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{} min {} s", s as u64 / 60, s as u64 % 60),
        s => format!("{} h {} min", s as u64 / 3600, s as u64 / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_act_on_the_terminal() {
        assert_eq!(escape("plain – ünï.png"), "plain – ünï.png");
        assert_eq!(escape("a\x1b[2Jb\nc\u{202e}gnp.exe"), "a\\u{1b}[2Jb\\nc\\u{202e}gnp.exe");
    }

    #[test]
    fn amounts_are_readable() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(3 << 29), "1.5 GiB");
        assert_eq!(duration(3.21), "3.2 s");
        assert_eq!(duration(119.0), "119 s");
        assert_eq!(duration(125.0), "2 min 5 s");
        assert_eq!(duration(7325.0), "2 h 2 min");
    }
}
