//! Fetching a model.

use super::path::wanted;
use crate::cli::events::print;
#[cfg(not(feature = "hub"))]
use crate::cli::exit::ExitCode;
#[cfg(not(feature = "hub"))]
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::terminal::Console;
use crate::hub::{Settings, Wanted};
use crate::models::Checkpoint;
use std::path::{Path, PathBuf};

/// Fetch a model into the cache
///
/// The cache is that of Python's huggingface_hub, so what either of them fetched both have. A fetch that was cut short goes on
/// where it ended; what has arrived is compared with its SHA-256.
///
/// Honoured are HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_TOKEN and the token's file, HF_HUB_OFFLINE, HTTPS_PROXY, NO_PROXY,
/// SSL_CERT_FILE; in seconds HF_HUB_ETAG_TIMEOUT, HF_HUB_DOWNLOAD_TIMEOUT, and TWEEDIE_LOCK_TIMEOUT for another process
/// that fetches the same.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_long_help = EXAMPLES)]
pub(super) struct Pull {
    /// Name of `tweedie models list`, or owner/repo[@revision] of the hub
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    fetch: Fetch,
}

/// How a model is fetched.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Fetch {
    /// Only this file of the repository
    #[arg(long, value_name = "FILE", help_heading = crate::cli::MODEL)]
    file: Option<String>,
    /// Fetch what is in the cache already anew
    #[arg(short, long, help_heading = crate::cli::INPUT_OUTPUT)]
    force: bool,
}

const EXAMPLES: &str = "\
Examples:
  tweedie models pull ddpm-cifar10-32
  tweedie models pull google/ncsnpp-church-256
  tweedie models pull deepinv/diffunet --file diffusion_ffhq_10m.pt";

pub(super) fn run(arguments: &Pull, console: Console) -> Outcome<()> {
    let wanted = wanted(&arguments.name)?;
    let settings = Settings::from_env();
    let path = fetch(&wanted, &settings, &arguments.fetch, console)?;
    let shown = path.display();
    print(format!("{shown}\n").as_bytes())?;
    if is_pickle(&path) {
        let name = wanted.name.rsplit('/').next().unwrap_or_default().split('@').next().unwrap_or_default();
        console.note("its weights are a pickle, which is not loaded; try:");
        console.note(&format!("  tweedie models convert {shown} {name}.safetensors"));
        return Ok(());
    }
    // Any file of a repository can be asked for, and a configuration is no model.
    if !path.is_dir() && !has_ending(&path, &["safetensors"]) {
        return Ok(());
    }
    // What holds no numbers, or too few, is found now and not in an hour: what was fetched, not a file of the user's that
    // has the model's name and goes before it.
    let by_name = arguments.fetch.file.is_none();
    Checkpoint::open(&if by_name { wanted.open(&settings)? } else { path.clone() })?;
    let model = if by_name && !Path::new(&wanted.name).exists() { wanted.name } else { shown.to_string() };
    console.note("try:");
    console.note(&format!("  tweedie inpaint photo.jpg --mask scratches.png --model {model}"));
    Ok(())
}

/// Whether the weights are in a form that is not loaded.
fn is_pickle(path: &Path) -> bool {
    const PICKLES: [&str; 5] = ["bin", "pt", "pth", "ckpt", "pkl"];
    if !path.is_dir() {
        return has_ending(path, &PICKLES);
    }
    let folders = [path.to_path_buf(), path.join("unet")].into_iter().filter_map(|folder| folder.read_dir().ok());
    let files: Vec<PathBuf> = folders.flatten().flatten().map(|file| file.path()).collect();
    let any = |endings: &[&str]| files.iter().any(|file| has_ending(file, endings));
    any(&PICKLES) && !any(&["safetensors"])
}

fn has_ending(path: &Path, endings: &[&str]) -> bool {
    path.extension().is_some_and(|extension| endings.iter().any(|ending| extension == *ending))
}

/// Fetches a model, telling about it on standard error: its file or folder.
#[cfg(feature = "hub")]
pub(crate) fn fetch(wanted: &Wanted, settings: &Settings, how: &Fetch, console: Console) -> Outcome<PathBuf> {
    use crate::cli::interrupt;
    use crate::cli::progress::Bar;
    use crate::cli::terminal::{bytes, count, duration, escape};
    use crate::hub::{Event, PullOptions, Pulled, pull};

    let options = PullOptions { force: how.force, file: how.file.clone() };
    let bar = Bar::new(console, 1);
    bar.phase("asking the hub");
    let mut tell = |event: Event<'_>| {
        interrupt::check()?;
        match event {
            Event::File { name, size, present } => {
                let size_text = size.map_or_else(|| "of unknown size".into(), bytes);
                let rest = if present > 0 { format!(", {} are there", bytes(present)) } else { String::new() };
                bar.aside(|| console.note(&format!("{name}, {size_text}{rest}")));
                bar.begin_bytes(escape(name).into_owned(), size, present);
            }
            Event::Bytes(done) => bar.bytes(done),
            Event::Again { reason, pause } => {
                let pause = duration(pause.as_secs_f64());
                bar.aside(|| console.warn(&format!("{reason}; trying again in {pause}")));
            }
            Event::Waiting { lock, limit } => {
                let (lock, limit) = (lock.display(), duration(limit.as_secs_f64()));
                let message = format!("another process is fetching the same file; waiting up to {limit} for {lock}");
                bar.aside(|| console.note(&message));
            }
            _ => {}
        }
        Ok(())
    };
    let Pulled { path, commit, files, bytes: received } = pull(wanted, settings, &options, &mut tell)?;
    drop(bar);
    let commit = commit.map_or_else(|| "as it is in the cache".into(), |commit| format!("at commit {commit}"));
    let what = match files {
        0 => "everything is in the cache already".into(),
        files => format!("{} fetched, {} received", count(files, "file"), bytes(received)),
    };
    console.note(&format!("{} {commit}: {what}", wanted.name));
    Ok(path)
}

/// Says that this program cannot.
#[cfg(not(feature = "hub"))]
pub(crate) fn fetch(wanted: &Wanted, settings: &Settings, how: &Fetch, _console: Console) -> Outcome<PathBuf> {
    let Fetch { file, force: _ } = how;
    let file = file.as_ref().map_or_else(String::new, |file| format!(", file {file}"));
    let message =
        format!("model {}: this program was built without the `hub` feature and fetches nothing", wanted.name);
    let hint = format!("fetch it by hand from {}{file}, and name its path", wanted.address(settings));
    Err(Failure::new(ExitCode::Model, message).hint(hint))
}
