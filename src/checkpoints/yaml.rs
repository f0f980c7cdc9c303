//! Configurations in YAML, as the training programs of NCSN and DDIM leave them beside their checkpoints.
//!
//! Those files are what PyYAML writes of nested `argparse.Namespace`s: maps by indentation, scalars, and lists of scalars.
//! No more is read: no anchors, no other tags, nothing that could refer to anything.

use serde_json::{Map, Value};

const MOST_LINES: usize = 10_000;
const MOST_DEPTH: usize = 16;
const NAMESPACE: &str = "!!python/object:argparse.Namespace";

/// The value of such a text.
///
/// # Errors
/// The number of the line, and what is not understood.
pub fn from_yaml(text: &str) -> Result<Value, String> {
    if text.lines().nth(MOST_LINES).is_some() {
        return Err(format!("more than {MOST_LINES} lines"));
    }
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let content = without_comment(line).trim_end();
        let indent = content.len() - content.trim_start_matches(' ').len();
        let content = content.trim_start_matches(' ');
        if content.starts_with('\t') {
            return Err(format!("line {}: indented by a tab", number + 1));
        }
        if !content.is_empty() && content != "---" && content != NAMESPACE {
            lines.push(Line { number: number + 1, indent, content });
        }
    }
    let mut rest = lines.as_slice();
    let value = map(&mut rest, 0)?;
    match rest.first() {
        Some(line) => Err(line.refuse("indented otherwise than the lines before it")),
        None => Ok(value),
    }
}

#[derive(Clone, Copy)]
struct Line<'a> {
    number: usize,
    indent: usize,
    content: &'a str,
}

impl Line<'_> {
    fn refuse(&self, what: &str) -> String {
        format!("line {}: {what}: {}", self.number, self.content.chars().take(60).collect::<String>())
    }
}

/// A map whose entries are indented like the first of the lines.
fn map(lines: &mut &[Line<'_>], depth: usize) -> Result<Value, String> {
    let mut entries = Map::new();
    let Some(indent) = lines.first().map(|line| line.indent) else { return Ok(Value::Object(entries)) };
    while let Some((&line, rest)) = lines.split_first().filter(|(line, _)| line.indent == indent) {
        *lines = rest;
        if depth == MOST_DEPTH {
            return Err(line.refuse("nested too deep"));
        }
        let (key, value) = line.content.split_once(':').ok_or_else(|| line.refuse("expected `key: value`"))?;
        let key = scalar(key.trim(), &line)?;
        let Value::String(key) = key else { return Err(line.refuse("expected a name before the colon")) };
        let value = match value.trim() {
            "" | NAMESPACE | "!!python/tuple" => below(lines, indent, depth)?,
            value => flow(value, &line)?,
        };
        if entries.insert(key, value).is_some() {
            return Err(line.refuse("a key twice"));
        }
    }
    Ok(Value::Object(entries))
}

/// What stands below a key: a list, a map, or nothing.
fn below(lines: &mut &[Line<'_>], indent: usize, depth: usize) -> Result<Value, String> {
    let Some(&first) = lines.first() else { return Ok(Value::Null) };
    if first.indent >= indent && (first.content == "-" || first.content.starts_with("- ")) {
        let mut items = Vec::new();
        while let Some((&line, rest)) = lines.split_first().filter(|(line, _)| line.indent == first.indent) {
            let Some(item) = line.content.strip_prefix("- ") else { break };
            *lines = rest;
            items.push(flow(item.trim(), &line)?);
        }
        return Ok(Value::Array(items));
    }
    if first.indent > indent { map(lines, depth + 1) } else { Ok(Value::Null) }
}

/// A scalar, or a list of scalars in brackets.
fn flow(text: &str, line: &Line<'_>) -> Result<Value, String> {
    let Some(inside) = text.strip_prefix('[') else {
        return if text == "{}" { Ok(Value::Object(Map::new())) } else { scalar(text, line) };
    };
    let inside = inside.strip_suffix(']').ok_or_else(|| line.refuse("a list that does not end"))?.trim();
    if inside.is_empty() {
        return Ok(Value::Array(Vec::new()));
    }
    let items = inside.trim_end_matches(',').split(',').map(|item| scalar(item.trim(), line));
    Ok(Value::Array(items.collect::<Result<_, _>>()?))
}

fn scalar(text: &str, line: &Line<'_>) -> Result<Value, String> {
    for quote in ['\'', '"'] {
        if let Some(inside) = text.strip_prefix(quote) {
            let inside = inside.strip_suffix(quote).filter(|inside| !inside.contains([quote, '\\']));
            return inside.map(Value::from).ok_or_else(|| line.refuse("a quotation that is not understood"));
        }
    }
    if text.starts_with(['!', '&', '*', '{', '[', '|', '>', '%', '@', '`', '?']) {
        return Err(line.refuse("not understood"));
    }
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "yes" => Value::from(true),
        "false" | "False" | "no" => Value::from(false),
        text => match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(integer), _) => Value::from(integer),
            (_, Ok(number)) if number.is_finite() && text.starts_with(|c: char| !c.is_alphabetic()) => {
                Value::from(number)
            }
            _ => Value::from(text),
        },
    })
}

/// The line up to a `#` that begins a comment.
fn without_comment(line: &str) -> &str {
    let begins = |(at, _): &(usize, &str)| *at == 0 || line[..*at].ends_with([' ', '\t']);
    line.match_indices('#').find(begins).map_or(line, |(at, _)| &line[..at])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_training_programs_write_is_read() {
        let text = "!!python/object:argparse.Namespace\ndata: !!python/object:argparse.Namespace\n  dataset: CIFAR10 # small\n  \
                    size: 32\nmodel:\n  ema: true\n  lr: 6.2e-06\n  name: 'a b'\n  mult: [1, 2, 2]\n  attn:\n  - 16\n  - 8\n  none: null\n\
                    empty:\nlast: -1\n";
        let expected = json!({
            "data": {"dataset": "CIFAR10", "size": 32},
            "model": {"ema": true, "lr": 6.2e-6, "name": "a b", "mult": [1, 2, 2], "attn": [16, 8], "none": null},
            "empty": null, "last": -1,
        });
        assert_eq!(from_yaml(text), Ok(expected));
    }

    #[test]
    fn what_could_be_more_than_data_is_refused_with_its_line() {
        for (text, message) in [
            (
                "a: 1\nb: !!python/object/apply:os.system [ls]",
                "line 2: not understood: b: !!python/object/apply:os.system [ls]",
            ),
            ("a: &x 1", "line 1: not understood: a: &x 1"),
            ("a: *x", "line 1: not understood: a: *x"),
            ("a: 1\na: 2", "line 2: a key twice: a: 2"),
            ("a: 1\n   b: 2", "line 2: indented otherwise than the lines before it: b: 2"),
            ("just text", "line 1: expected `key: value`: just text"),
            ("a: [1, 2", "line 1: a list that does not end: a: [1, 2"),
        ] {
            assert_eq!(from_yaml(text), Err(message.into()), "{text}");
        }
        let deep: String = (0..40).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
        assert_eq!(from_yaml(&deep), Err("line 17: nested too deep: a:".into()));
        // Empty lines count.
        let long = |lines: usize| format!("a: 1{}b: 2\n", "\n".repeat(lines - 1));
        assert_eq!(from_yaml(&long(MOST_LINES)), Ok(json!({"a": 1, "b": 2})));
        assert_eq!(from_yaml(&long(MOST_LINES + 1)), Err(format!("more than {MOST_LINES} lines")));
    }
}
