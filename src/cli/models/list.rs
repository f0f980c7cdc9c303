//! All models that are known by a name, a line each.

use crate::cli::columns::{aligned, width};
use crate::cli::events::{print, print_json};
use crate::cli::failure::Outcome;
use crate::hub::{Cache, Entry, Settings, Wanted, index};
use serde::Serialize;
use std::path::PathBuf;

/// List the models that are known by a name, and whether they are here
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct List {
    /// Print one JSON object
    #[arg(long, help_heading = crate::cli::DIAGNOSTICS)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  tweedie models list
  tweedie models list --json
  tweedie models list | grep FFHQ";

#[derive(Debug, Serialize)]
struct Listing {
    cache: PathBuf,
    models: Vec<Listed>,
}

#[derive(Debug, Serialize)]
struct Listed {
    /// inside, cached, pull or by hand.
    state: &'static str,
    path: Option<PathBuf>,
    #[serde(flatten)]
    entry: &'static Entry,
}

pub(super) fn run(arguments: &List) -> Outcome<()> {
    let cache = Cache::new(Settings::from_env().cache);
    let listed = |entry: &'static Entry| {
        let wanted = Wanted::parse(&entry.name).and_then(Result::ok);
        let path = wanted.and_then(|wanted| wanted.find(&cache).ok().flatten());
        let state = match (entry.embedded, &path, &entry.repository) {
            (true, ..) => "inside",
            (_, Some(_), _) => "cached",
            (_, None, Some(_)) => "pull",
            (_, None, None) => "by hand",
        };
        Listed { state, path, entry }
    };
    let listing = Listing { cache: cache.root().into(), models: index().iter().map(listed).collect() };
    if arguments.json { print_json(&listing) } else { print(text(&listing, width()).as_bytes()) }
}

fn text(listing: &Listing, width: Option<usize>) -> String {
    let numbers: Vec<[String; 2]> = listing
        .models
        .iter()
        .map(|Listed { entry, .. }| {
            let pixels = entry.resolution.map_or_else(|| "any".into(), |side| side.to_string());
            [pixels, entry.megabytes.map_or_else(String::new, |size| format!("{size} MB"))]
        })
        .collect();
    let mut rows = vec![["model", "state", "pixels", "size", "family", "about, licence, origin"]];
    let about: Vec<String> = listing
        .models
        .iter()
        .map(|Listed { entry, .. }| {
            let address = entry.address.as_ref().map_or_else(String::new, |address| format!("; {address}"));
            format!("{}; {}; {}{address}", entry.about, entry.licence, entry.origin)
        })
        .collect();
    for ((Listed { state, entry, .. }, [pixels, size]), about) in listing.models.iter().zip(&numbers).zip(&about) {
        rows.push([&entry.name, state, pixels, size, &entry.family, about]);
    }
    let advice = "pull: `tweedie models pull NAME` fetches it; by hand: fetch it from its address, then `tweedie models \
                  convert`";
    format!("{}\n{advice}\ncache: {}\n", aligned(&rows, 0, width), listing.cache.display())
}
