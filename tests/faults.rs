//! The tables of `docs/faults.md`: every number has its row, and every test named there exists and has the number in its
//! name or in the comment above it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The comments above each test and its name, by its name.
fn comments(folder: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            comments(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let (mut comment, mut is_test) = (String::new(), false);
            for line in text.lines().map(str::trim) {
                if line.starts_with("//") {
                    comment.push_str(line);
                    comment.push(' ');
                } else if line.starts_with("#[") {
                    is_test |= line == "#[test]";
                } else {
                    if let Some(name) = line.strip_prefix("fn ").filter(|_| is_test) {
                        let name = name.split('(').next().unwrap();
                        found.insert(name.to_owned(), format!("{comment} {name}"));
                    }
                    (comment, is_test) = (String::new(), false);
                }
            }
        }
    }
}

/// Whether `comment` has the number by itself or in a range such as `41 to 43`.
fn names(comment: &str, number: usize) -> bool {
    let words: Vec<&str> =
        comment.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let numbers = |word: &&str| word.parse::<usize>().ok();
    words.iter().filter_map(numbers).any(|found| found == number)
        || words.windows(3).any(|three| {
            three[1] == "to"
                && matches!((numbers(&three[0]), numbers(&three[2])), (Some(a), Some(b)) if (a..=b).contains(&number))
        })
}

#[test]
fn every_fault_has_a_row_and_every_test_named_there_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = BTreeMap::new();
    for folder in ["tests", "src", "operators/tests", "operators/src"] {
        comments(&root.join(folder), &mut tests);
    }
    let text = fs::read_to_string(root.join("docs/faults.md")).unwrap();
    let mut rows = Vec::new();
    let mut wrong = Vec::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let Some(number) = cells.get(1).and_then(|cell| cell.parse::<usize>().ok()) else { continue };
        rows.push(number);
        assert_eq!(cells.len(), 6, "{line}");
        assert!(cells[3] == "–" || cells[3].starts_with('`'), "{line}");
        for name in cells[3].split('`').skip(1).step_by(2) {
            match tests.get(name) {
                None => wrong.push(format!("{number}: there is no test {name}")),
                Some(comment) if !names(comment, number) => wrong.push(format!("{number}: {name} says {comment:?}")),
                Some(_) => {}
            }
        }
    }
    assert_eq!(rows, (1..=70).collect::<Vec<_>>());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn numbers_and_ranges_are_found_in_comments() {
    assert!(names("/// Fault 4.", 4) && names("// Items 41 to 43, and 48.", 42) && names("/// 62, 63", 63));
    assert!(!names("/// Fault 14.", 4) && !names("// Items 41 to 43.", 44) && !names("/// in 2020", 20));
}
