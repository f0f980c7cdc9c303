//! Models of the hub: fetched, kept, found, removed. The hub is a real server on loopback. Numbers in comments are those of
//! the catalogue of bad inputs.

mod server;

use crate::harness::{Folder, Ran};
use crate::models::{data, scattered};
use server::{COMMIT, Fault, Hub, HubFile, Request, proxy};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A name of the index, and where it is hosted.
const NAME: &str = "ddpm-cifar10-32";
const REPOSITORY: &str = "google/ddpm-cifar10-32";
const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

/// A hub and a folder with a cache.
struct World {
    hub: Hub,
    folder: Folder,
}

impl World {
    fn empty() -> Self {
        Self { hub: Hub::new(), folder: Folder::new() }
    }

    /// With the smallest network of the tests under a name of the index.
    fn new() -> Self {
        let world = Self::empty();
        let read = |name: &str| fs::read(data("diffusers/ddpm-google").join(name)).unwrap();
        // `git hash-object FILE`
        let config = HubFile::small(read("config.json"), "55903b26a2f132f9c7d5636c154302469964aa56");
        let scheduler = HubFile::small(read("scheduler_config.json"), "8eb07e31ebbfea0a1f3a1efd7aa19023f91cf179");
        world.hub.add(REPOSITORY, "config.json", config);
        world.hub.add(REPOSITORY, "scheduler_config.json", scheduler);
        world.hub.add(REPOSITORY, "README.md", HubFile::small("", "none-of-it"));
        world.hub.add(REPOSITORY, WEIGHTS, HubFile::large(read(WEIGHTS)));
        world
    }

    /// With `a/b`, whose only file holds these bytes, which are no model.
    fn with_bytes(bytes: &[u8]) -> Self {
        let world = Self::empty();
        world.hub.add("a/b", "m.pt", HubFile::large(bytes));
        world
    }

    fn command(&self, line: &str) -> Command {
        let mut command = self.folder.command(&line.split_whitespace().collect::<Vec<_>>());
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy().to_ascii_uppercase();
            if text.starts_with("HF_")
                || text.starts_with("HUGGING")
                || text.ends_with("_PROXY")
                || text == "SSL_CERT_FILE"
            {
                command.env_remove(&name);
            }
        }
        command.env("HF_ENDPOINT", self.hub.endpoint()).env("HF_HOME", self.folder.path("hf"));
        command
    }

    fn run(&self, line: &str) -> Ran {
        self.command(line).output().unwrap().into()
    }

    fn start(&self, line: &str) -> Child {
        self.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    #[track_caller]
    fn succeed(&self, line: &str) -> Ran {
        let ran = self.run(line);
        assert_eq!(ran.code, 0, "tweedie {line}\n{}", ran.stderr);
        ran
    }

    #[track_caller]
    fn refused(&self, line: &str, code: i32, message: &str) -> Ran {
        let ran = self.run(line);
        self.is_refused(&ran, line, code, message);
        ran
    }

    #[track_caller]
    fn is_refused(&self, ran: &Ran, line: &str, code: i32, message: &str) {
        assert_eq!(ran.code, code, "tweedie {line}\n{}", ran.stderr);
        assert!(ran.stderr.contains(message), "expected `{message}` in:\n{}", ran.stderr);
        assert!(ran.stdout.is_empty(), "{}", ran.text());
    }

    fn cache(&self) -> PathBuf {
        self.folder.path("hf/hub")
    }

    fn repository(&self, folder: &str) -> PathBuf {
        self.cache().join(folder)
    }

    /// The blob of the only large file of `a/b`.
    fn blob(&self, bytes: &[u8]) -> PathBuf {
        self.repository("models--a--b").join("blobs").join(HubFile::large(bytes).etag)
    }

    /// The file under the name that a snapshot gives it.
    fn snapshot(&self) -> PathBuf {
        self.repository("models--a--b").join("snapshots").join(COMMIT).join("m.pt")
    }
}

/// Bytes that no compression and no chance makes.
fn noise(count: usize) -> Vec<u8> {
    scattered(count, 7).into_iter().map(|value| (value * 4096.0).to_bits().to_le_bytes()[1]).collect()
}

/// Names of everything below a folder, sorted.
fn tree(folder: &Path) -> Vec<String> {
    fn visit(root: &Path, folder: &Path, names: &mut Vec<String>) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.symlink_metadata().unwrap().is_dir() {
                visit(root, &path, names);
            } else {
                names.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let mut names = Vec::new();
    visit(folder, folder, &mut names);
    names.sort();
    names
}

fn range(request: &Request) -> Option<u64> {
    request.headers.get("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

// --- the layout ------------------------------------------------------------------------------------------------------

#[test]
fn a_model_is_fetched_into_the_layout_that_other_programs_share() {
    let world = World::new();
    let ran = world.succeed(&format!("models pull {NAME}"));
    let repository = world.repository("models--google--ddpm-cifar10-32");
    let snapshot = repository.join("snapshots").join(COMMIT);
    assert_eq!(ran.text(), format!("{}\n", snapshot.display()));
    let line = format!("tweedie inpaint photo.jpg --mask scratches.png --model {NAME}");
    assert!(ran.stderr.ends_with(&format!("try:\n  {line}\n")), "{}", ran.stderr);
    let weights = fs::read(data("diffusers/ddpm-google").join(WEIGHTS)).unwrap();
    let large = HubFile::large(weights.clone()).etag;
    let mut expected = vec![
        "blobs/55903b26a2f132f9c7d5636c154302469964aa56".to_owned(),
        "blobs/8eb07e31ebbfea0a1f3a1efd7aa19023f91cf179".to_owned(),
        format!("blobs/{large}"),
        "refs/main".to_owned(),
    ];
    expected.extend(["config.json", WEIGHTS, "scheduler_config.json"].map(|name| format!("snapshots/{COMMIT}/{name}")));
    expected.sort();
    assert_eq!(tree(&repository), expected);
    assert_eq!(fs::read_to_string(repository.join("refs/main")).unwrap(), COMMIT);
    assert_eq!(fs::read(snapshot.join(WEIGHTS)).unwrap(), weights);
    #[cfg(unix)]
    assert_eq!(fs::read_link(snapshot.join(WEIGHTS)).unwrap(), Path::new("../../blobs").join(&large));
    assert!(world.cache().join(format!(".locks/models--google--ddpm-cifar10-32/{large}.lock")).exists());
    // A second time only the hub is asked, and nothing is fetched.
    world.hub.requests();
    let ran = world.succeed(&format!("models pull {REPOSITORY}"));
    assert!(ran.stderr.contains("everything is in the cache already"), "{}", ran.stderr);
    assert!(world.hub.requests().iter().all(|request| request.path.starts_with("/api/") || request.method == "HEAD"));
    // With --force it is.
    let ran = world.succeed(&format!("models pull {NAME} --force"));
    assert!(ran.stderr.contains("3 files fetched"), "{}", ran.stderr);
    assert_eq!(world.hub.downloads().len(), 1);
    assert_eq!(tree(&repository), expected);
}

#[test]
fn files_in_folders_are_linked_from_where_they_are() {
    let world = World::empty();
    let read = |name: &str| fs::read(data("diffusers/ddpm-google").join(name)).unwrap();
    world.hub.add(
        "a/b",
        "unet/config.json",
        HubFile::small(read("config.json"), "55903b26a2f132f9c7d5636c154302469964aa56"),
    );
    world.hub.add(
        "a/b",
        "scheduler/scheduler_config.json",
        HubFile::small(read("scheduler_config.json"), "8eb07e31ebbfea0a1f3a1efd7aa19023f91cf179"),
    );
    world.hub.add("a/b", &format!("unet/{WEIGHTS}"), HubFile::large(read(WEIGHTS)));
    world.succeed("models pull a/b@a/b");
    let repository = world.repository("models--a--b");
    assert_eq!(fs::read_to_string(repository.join("refs/a/b")).unwrap(), COMMIT);
    assert_eq!(fs::read(repository.join("snapshots").join(COMMIT).join("unet").join(WEIGHTS)).unwrap(), read(WEIGHTS));
    let ran = world.succeed("models inspect a/b@a/b");
    assert!(ran.text().starts_with("name              a/b@a/b\n"), "{}", ran.text());
    assert!(ran.text().contains("71323"), "{}", ran.text());
    world.refused("models inspect a/b", 4, "is not in the cache");
}

#[test]
fn models_are_named_listed_found_and_removed() {
    let world = World::new();
    let path = format!("models path {NAME}");
    let absent = format!(
        "error: model {NAME}: is not in the cache {}; `tweedie models pull {NAME}` fetches it from {}/{REPOSITORY}\n",
        world.cache().display(),
        world.hub.endpoint()
    );
    world.refused(&path, 4, &absent);
    let state = |name: &str| {
        let list: serde_json::Value = serde_json::from_str(world.succeed("models list --json").text()).unwrap();
        let models = list["models"].as_array().unwrap().clone();
        models.into_iter().find(|model| model["name"] == name).unwrap()["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        (state(NAME), state("photo-prior-v1"), state("repaint")),
        ("pull".into(), "inside".into(), "by hand".into())
    );
    world.succeed(&format!("models pull {NAME}"));
    assert_eq!(state(NAME), "cached");
    let snapshot = world.repository("models--google--ddpm-cifar10-32").join("snapshots").join(COMMIT);
    assert_eq!(world.succeed(&path).text(), format!("{}\n", snapshot.display()));
    // By name, by repository, by commit, by folder: the same model.
    let folder = snapshot.display().to_string();
    for model in [NAME, REPOSITORY, &format!("{REPOSITORY}@{COMMIT}"), &folder] {
        let facts = world.succeed(&format!("models inspect {model} --json"));
        let facts: serde_json::Value = serde_json::from_str(facts.text()).unwrap();
        assert_eq!(facts["facts"]["parameters"], "71323", "{model}");
    }
    let sample = format!("sample --model {NAME} --steps 2 --size 16x16 -o s.png");
    world.succeed(&sample);
    assert_eq!(world.folder.open("s.png").width(), 16);
    let ran = world.succeed(&format!("models remove {NAME}"));
    let removed =
        ran.stderr.strip_prefix(&format!("{NAME}: removed 3 files, ")).unwrap_or_else(|| panic!("{}", ran.stderr));
    assert!(removed.starts_with("297."), "303 kB and 1 kB: {removed}");
    assert!(!world.repository("models--google--ddpm-cifar10-32").exists());
    world.refused(&path, 4, &absent);
    world.refused(&format!("models remove {NAME}"), 3, "is not in the cache");
    world.refused(
        "models path nonsense",
        2,
        "model nonsense: is no name of the index and no owner/repo[@revision] of the hub",
    );
    world.refused(
        "models pull repaint",
        4,
        "is not on the hub; fetch it by hand from https://github.com/andreas128/RePaint",
    );
    world.refused("models pull photo-prior-v1", 4, "is inside the program and has no files");
    assert!(world.succeed("models inspect photo-prior-v1").text().contains("4992972"));
}

#[test]
fn what_two_models_share_stays_when_one_is_removed() {
    let world = World::empty();
    let [one, other] = [noise(3000), noise(5000)];
    world.hub.add("deepinv/diffunet", "diffusion_ffhq_10m.pt", HubFile::large(&*one));
    world.hub.add("deepinv/diffunet", "diffusion_openai.pt", HubFile::large(&*other));
    let ran = world.succeed("models pull adm-ffhq-256");
    let snapshot = world.repository("models--deepinv--diffunet").join("snapshots").join(COMMIT);
    let file = snapshot.join("diffusion_ffhq_10m.pt");
    // A pickle is not loaded, and the command that makes one of it that is comes ready to be run.
    let advice = format!("  tweedie models convert {} adm-ffhq-256.safetensors\n", file.display());
    assert!(ran.stderr.ends_with(&advice), "{}", ran.stderr);
    assert_eq!(world.hub.downloads().len(), 1, "the other file was not asked for");
    world.succeed("models pull adm-imagenet-256");
    let several =
        world.refused("models pull deepinv/diffunet", 4, "has several files with weights; --file names one of ");
    assert!(several.stderr.contains("diffusion_ffhq_10m.pt, diffusion_openai.pt"), "{}", several.stderr);
    assert!(
        world.refused("models path deepinv/diffunet", 4, "has several files with weights").stderr.contains("openai")
    );
    world.succeed("models remove adm-ffhq-256");
    assert_eq!(
        tree(&world.repository("models--deepinv--diffunet")).iter().filter(|name| name.starts_with("blobs/")).count(),
        1
    );
    assert_eq!(fs::read(snapshot.join("diffusion_openai.pt")).unwrap(), other);
    world.succeed("models pull deepinv/diffunet --file diffusion_ffhq_10m.pt");
    assert_eq!(fs::read(file).unwrap(), one);
    world.refused(
        "models pull deepinv/diffunet --file none.pt",
        4,
        "has no file none.pt; it has diffusion_ffhq_10m.pt, ",
    );
    // A revision alone goes with what only it needs.
    world.succeed("models pull adm-ffhq-256");
    world.hub.commit(&"f".repeat(40));
    world.succeed("models pull adm-ffhq-256");
    assert_eq!(world.hub.downloads().len(), 2, "the same contents under another commit are there already");
    world.succeed(&format!("models remove deepinv/diffunet@{COMMIT}"));
    assert!(!snapshot.exists());
    assert_eq!(world.succeed("models path adm-ffhq-256").code, 0);
}

#[test]
fn what_was_only_begun_is_removed_alone_and_kept_beside_a_model() {
    let world = World::with_bytes(b"abc");
    let folder = world.repository("models--a--b");
    let begun = folder.join("blobs").join("0".repeat(64) + ".incomplete");
    let begin = || {
        fs::create_dir_all(folder.join("blobs")).unwrap();
        fs::write(&begun, noise(2000)).unwrap();
    };
    begin();
    let ran = world.succeed("models remove a/b");
    assert!(ran.stderr.starts_with("a/b: removed 0 files, "), "{}", ran.stderr);
    assert!(!folder.exists());
    world.refused("models remove a/b", 3, "is not in the cache");
    world.succeed("models pull a/b");
    begin();
    let ran = world.run(&format!("models remove a/b@{}", "f".repeat(40)));
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    world.hub.commit(&"f".repeat(40));
    world.succeed("models pull a/b");
    world.succeed(&format!("models remove a/b@{COMMIT}"));
    assert!(begun.exists());
    assert_eq!(world.succeed("models path a/b").code, 0);
    assert!(world.cache().join(".locks/models--a--b").exists());
}

// --- the hub and its moods -------------------------------------------------------------------------------------------

#[test]
fn failures_that_pass_are_waited_out_and_what_has_arrived_is_kept() {
    let bytes = noise(300_000);
    /// What happens, and where each request asks to begin.
    type Case = (&'static str, Vec<Fault>, Vec<Option<u64>>);
    let cases: [Case; 7] = [
        ("an error of the server", vec![Fault::Status(500), Fault::Status(503)], vec![None, None, None]),
        ("a busy server", vec![Fault::Later(429, 1)], vec![None, None]),
        ("a cut connection", vec![Fault::Cut(100_000), Fault::Cut(50_000)], vec![None, Some(100_000), Some(150_000)]),
        ("a server without ranges", vec![Fault::Cut(100_000), Fault::NoRange], vec![None, Some(100_000)]),
        ("another range", vec![Fault::Cut(100_000), Fault::WrongRange], vec![None, Some(100_000), None]),
        ("nothing at all", vec![Fault::Cut(0), Fault::Cut(0)], vec![None, None, None]),
        ("a silent server", vec![Fault::Stall(100_000)], vec![None, Some(100_000)]),
    ];
    for (what, faults, ranges) in cases {
        let world = World::with_bytes(&bytes);
        world.hub.fail(faults);
        let begun = Instant::now();
        let ran: Ran = world.command("models pull a/b").env("HF_HUB_DOWNLOAD_TIMEOUT", "1").output().unwrap().into();
        assert_eq!(ran.code, 0, "{what}: {}", ran.stderr);
        assert_eq!(fs::read(world.snapshot()).unwrap(), bytes, "{what}");
        assert!(
            ran.stderr.contains("; trying again in ") || what == "a server without ranges",
            "{what}: {}",
            ran.stderr
        );
        assert!(!ran.stderr.contains("Signature"), "an address that is signed is a key: {}", ran.stderr);
        let requests = world.hub.downloads();
        assert_eq!(requests.iter().map(range).collect::<Vec<_>>(), ranges, "{what}");
        // Once the sender's etag is known, a continuation is of the same file or of none.
        for request in requests.iter().filter(|request| range(request).is_some()) {
            assert_eq!(request.headers["if-match"], "\"sender-1\"", "{what}");
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{what} took {:?}", begun.elapsed());
        assert!(tree(&world.cache()).iter().all(|name| !name.ends_with(".incomplete")), "{what}");
    }
}

#[test]
fn failures_of_the_list_pass_too() {
    let world = World::with_bytes(b"abc");
    world.hub.fail_hub([Fault::Status(502), Fault::Status(500)]);
    world.succeed("models pull a/b");
    assert_eq!(fs::read(world.snapshot()).unwrap(), b"abc");
}

#[test]
fn failures_that_stay_end_it_with_the_reason() {
    let bytes = noise(30_000);
    let world = World::with_bytes(&bytes);
    world.hub.fail([Fault::Status(500); 20]);
    world.refused("models pull a/b", 4, "status 500 Internal Server Error; gave up after 5 repetitions\n");
    assert_eq!(world.hub.downloads().len(), 6);
    let world = World::with_bytes(&bytes);
    // What arrives again and again is no progress.
    world.hub.fail([Fault::NoRangeCut(10_000); 20]);
    world.refused("models pull a/b", 4, "gave up after 5 repetitions\n");
    let world = World::with_bytes(&bytes);
    world.hub.fail([Fault::TooMuch]);
    world.refused("models pull a/b", 4, "m.pt: the server sends more than 30000 bytes");
    assert!(!world.snapshot().exists());
}

#[test]
fn a_file_that_changed_meanwhile_is_fetched_from_its_beginning() {
    let bytes = noise(300_000);
    let world = World::with_bytes(&bytes);
    world.hub.fail([Fault::Cut(100_000)]);
    world.hub.pace(20_000, Duration::from_millis(30));
    let child = world.start("models pull a/b");
    std::thread::sleep(Duration::from_millis(100));
    world.hub.sender_etag("\"sender-2\"");
    let ran: Ran = child.wait_with_output().unwrap().into();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("m.pt: status 412"), "{}", ran.stderr);
    assert_eq!(world.hub.downloads().iter().map(range).collect::<Vec<_>>(), [None, Some(100_000), None]);
    assert_eq!(fs::read(world.snapshot()).unwrap(), bytes);
}

#[test]
fn what_is_not_there_or_not_open_is_said() {
    let world = World::with_bytes(b"abc");
    let ran =
        world.refused("models pull a/none", 4, "error: model a/none: there is no such repository, revision or file (");
    assert!(ran.stderr.contains("/api/models/a/none/revision/main: status 404 Not Found)"), "{}", ran.stderr);
    world.refused("models pull a/b@other", 4, "error: model a/b@other: there is no such revision (");
    world.hub.require("hf_secret");
    world.refused(
        "models pull a/b",
        4,
        "there is no such repository, or it is not open to all: HF_TOKEN gives access (",
    );
    let with =
        |token: &str| -> Ran { world.command("models pull a/b").env("HF_TOKEN", token).output().unwrap().into() };
    let wrong = with("hf_wrong");
    world.is_refused(&wrong, "models pull a/b", 4, "or the token in use gives no access to it (");
    assert!(!wrong.stderr.contains("hf_wrong"), "{}", wrong.stderr);
    world.hub.requests();
    assert_eq!(with("hf_secret").code, 0);
    for request in world.hub.requests() {
        let token = request.headers.get("authorization").map(String::as_str);
        // The host that large files come from is another one: the token is none of its business.
        let expected = if request.path.starts_with("/cdn/") { None } else { Some("Bearer hf_secret") };
        assert_eq!(token, expected, "{}", request.path);
    }
}

#[test]
fn the_token_is_read_from_its_file() {
    let world = World::with_bytes(b"abc");
    world.hub.require("hf_secret");
    fs::create_dir_all(world.folder.path("hf")).unwrap();
    fs::write(world.folder.path("hf/token"), "hf_secret\n").unwrap();
    world.succeed("models pull a/b");
}

#[test]
fn a_hub_that_names_files_outside_of_the_cache_is_refused() {
    for name in ["../../../../escaped.pt", "/tmp/escaped.pt", "a\\..\\b.pt"] {
        let world = World::empty();
        world.hub.add("a/b", name, HubFile::large(b"abc".as_slice()));
        let mut command = world.command("models pull a/b --file");
        let ran: Ran = command.arg(name).output().unwrap().into();
        world.is_refused(&ran, name, 4, "which would leave its folder");
        assert!(tree(&world.cache()).is_empty(), "{name}: {:?}", tree(&world.cache()));
    }
    let world = World::empty();
    world.hub.add("a/b", "m.pt", HubFile { bytes: b"abc".to_vec(), etag: "../../x".into(), large: false });
    world.refused("models pull a/b", 4, "answers without an etag that can name a file: \"../../x\"");
}

#[test]
fn proxies_are_used_unless_the_host_is_exempt() {
    let world = World::with_bytes(b"abc");
    let (address, asked) = proxy(([127, 0, 0, 1], world.hub.port()).into());
    let proxied = |variables: &[(&str, &str)]| -> Ran {
        let mut command = world.command("models pull a/b --force");
        command.env("http_proxy", format!("http://{address}"));
        command.envs(variables.iter().copied()).output().unwrap().into()
    };
    // Only the proxy knows this host.
    let elsewhere = format!("http://hub.invalid:{}", world.hub.port());
    let ran = proxied(&[("HF_ENDPOINT", &elsewhere)]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let hosts = std::mem::take(&mut *asked.lock().unwrap());
    assert!(hosts.contains(&format!("hub.invalid:{}", world.hub.port())), "{hosts:?}");
    assert!(hosts.iter().any(|host| host.starts_with("127.0.0.1:")), "large files come by way of it, too: {hosts:?}");
    // What the proxy would read in the clear is not told.
    world.hub.requests();
    assert_eq!(proxied(&[("HF_TOKEN", "hf_secret")]).code, 0);
    let requests = world.hub.requests();
    assert!(requests.iter().all(|request| !request.headers.contains_key("authorization")), "the token went out");
    asked.lock().unwrap().clear();
    assert_eq!(proxied(&[("NO_PROXY", "other.host, 127.0.0.1")]).code, 0);
    assert!(asked.lock().unwrap().is_empty(), "{:?}", asked.lock().unwrap());
    let ran = proxied(&[("http_proxy", "nonsense proxy")]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(
        ran.stderr.starts_with("error: http_proxy is no address of a proxy, expected http://host:port"),
        "{}",
        ran.stderr
    );
}

// --- damage ----------------------------------------------------------------------------------------------------------

// 40
#[test]
fn contents_with_another_hash_are_refused_and_leave_nothing() {
    let bytes = noise(30_000);
    let world = World::with_bytes(&bytes);
    world.hub.fail([Fault::OtherBytes]);
    let expected = HubFile::large(&*bytes).etag;
    let ran = world.refused("models pull a/b", 4, "error: model a/b: m.pt: SHA-256 mismatch: got ");
    assert!(
        ran.stderr.ends_with(&format!(", expected {expected}; run `tweedie models pull a/b --force`\n")),
        "{}",
        ran.stderr
    );
    assert!(tree(&world.repository("models--a--b")).is_empty());
    world.succeed("models pull a/b --force");
    assert_eq!(fs::read(world.snapshot()).unwrap(), bytes);
}

#[test]
fn a_small_file_with_another_hash_is_refused_too() {
    let world = World::empty();
    world.hub.add("a/b", "m.pt", HubFile::small("hello\n", "ce013625030ba8dba906f756967f9e9ca394464a"));
    world.succeed("models pull a/b");
    world.hub.add("a/b", "m.pt", HubFile::small("hellO\n", "ce013625030ba8dba906f756967f9e9ca394464a"));
    world.refused("models pull a/b --force", 4, "m.pt: git hash mismatch: got ");
    assert_eq!(fs::read(world.snapshot()).unwrap(), b"hello\n", "what was right stays");
}

#[test]
fn what_an_earlier_attempt_left_may_be_wrong_or_too_long() {
    let bytes = noise(30_000);
    for left in [vec![1; 20_000], vec![1; 30_000], vec![1; 40_000]] {
        let world = World::with_bytes(&bytes);
        let blob = world.blob(&bytes);
        fs::create_dir_all(blob.parent().unwrap()).unwrap();
        fs::write(blob.with_extension("incomplete"), &left).unwrap();
        world.succeed("models pull a/b");
        assert_eq!(fs::read(world.snapshot()).unwrap(), bytes, "{} bytes", left.len());
    }
}

// 40
#[test]
fn a_cached_file_that_was_damaged_is_refused_and_fetched_again() {
    let world = World::new();
    world.succeed(&format!("models pull {NAME}"));
    let snapshot = world.repository("models--google--ddpm-cifar10-32").join("snapshots").join(COMMIT);
    let weights = snapshot.join(WEIGHTS);
    let whole = fs::read(&weights).unwrap();
    let flipped = {
        let mut bytes = whole.clone();
        bytes[200_000] ^= 1;
        bytes
    };
    for damaged in [&flipped[..], &whole[..whole.len() - 1000]] {
        fs::write(weights.canonicalize().unwrap(), damaged).unwrap();
        for line in [
            format!("models inspect {NAME}"),
            format!("sample --model {REPOSITORY} --size 16x16"),
            format!("models path {NAME}"),
        ] {
            let ran = world.run(&line);
            world.is_refused(&ran, &line, 4, "SHA-256 mismatch, run `tweedie models pull ");
            assert!(ran.stderr.contains(" --force`: "), "{}", ran.stderr);
        }
        world.succeed(&format!("models pull {NAME} --force"));
        assert_eq!(fs::read(&weights).unwrap(), whole);
    }
    // A link that leads nowhere is no file, and what is too short is fetched without being told so.
    fs::remove_file(weights.canonicalize().unwrap()).unwrap();
    world.refused(&format!("models path {NAME}"), 4, "is not in the cache");
    world.succeed(&format!("models pull {NAME}"));
    fs::write(weights.canonicalize().unwrap(), &whole[..1000]).unwrap();
    world.succeed(&format!("models pull {NAME}"));
    assert_eq!(fs::read(&weights).unwrap(), whole);
}

// 47
#[test]
fn weights_that_are_no_numbers_are_found_when_they_are_fetched() {
    let world = World::new();
    let mut bytes = fs::read(data("diffusers/ddpm-google").join(WEIGHTS)).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    world.hub.add(REPOSITORY, WEIGHTS, HubFile::large(bytes));
    let ran = world.run(&format!("models pull {NAME}"));
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    assert!(ran.stderr.contains(" holds NaN, expected finite numbers"), "{}", ran.stderr);
}

// --- the machine -----------------------------------------------------------------------------------------------------

// 52
#[test]
fn a_cache_that_cannot_be_written_is_named_with_the_bytes_needed() {
    let bytes = noise(300_000);
    let world = World::with_bytes(&bytes);
    fs::write(world.folder.path("file"), "in the way").unwrap();
    let with = |cache: PathBuf| -> Ran {
        world.command("models pull a/b").env("HF_HUB_CACHE", cache).output().unwrap().into()
    };
    let ran = with(world.folder.path("file"));
    world.is_refused(&ran, "under a file", 5, "file/models--a--b/blobs: cannot be written, 300000 bytes are needed: ");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("/nowhere/at/all", world.folder.path("dangling")).unwrap();
        let ran = with(world.folder.path("dangling"));
        world.is_refused(
            &ran,
            "dangling",
            5,
            "dangling/models--a--b/blobs: cannot be written, 300000 bytes are needed: ",
        );
    }
}

// 52
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_ends_it_and_what_has_arrived_is_used_later() {
    let bytes = noise(300_000);
    let world = World::with_bytes(&bytes);
    let command = world.command("models pull a/b");
    let mut limited = Command::new("sh");
    // In units of 512 or 1024 bytes, as the shell has it.
    limited.args(["-c", &format!("ulimit -f 100; exec {} models pull a/b", command.get_program().to_str().unwrap())]);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    let ran: Ran = limited.current_dir(world.folder.path("")).output().unwrap().into();
    world.is_refused(&ran, "limited", 5, ".incomplete: cannot be written, 300000 bytes are needed: ");
    assert!(!world.snapshot().exists() && !world.blob(&bytes).exists());
    world.hub.requests();
    world.succeed("models pull a/b");
    assert!(world.hub.downloads().iter().all(|request| range(request).is_some_and(|from| from >= 50_000)));
    assert_eq!(fs::read(world.snapshot()).unwrap(), bytes);
}

// 53
#[test]
fn of_two_processes_one_fetches_and_the_other_waits() {
    let bytes = noise(200_000);
    let world = World::with_bytes(&bytes);
    world.hub.pace(10_000, Duration::from_millis(60));
    let children = [(); 2].map(|()| world.start("models pull a/b"));
    let ran = children.map(|child| Ran::from(child.wait_with_output().unwrap()));
    for ran in &ran {
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert_eq!(ran.text(), format!("{}\n", world.snapshot().display()));
    }
    assert_eq!(world.hub.downloads().len(), 1);
    assert_eq!(fs::read(world.snapshot()).unwrap(), bytes);
    let waited =
        |ran: &Ran| ran.stderr.contains("another process is fetching the same file; waiting up to 30 min 0 s for ");
    assert_eq!(ran.iter().filter(|ran| waited(ran)).count(), 1, "{ran:?}");
}

// 53
#[test]
fn waiting_for_another_process_ends() {
    let bytes = noise(1000);
    let world = World::with_bytes(&bytes);
    let locks = world.cache().join(".locks/models--a--b");
    fs::create_dir_all(&locks).unwrap();
    let path = locks.join(format!("{}.lock", HubFile::large(&*bytes).etag));
    let lock = fs::File::create(&path).unwrap();
    lock.lock().unwrap();
    let ran: Ran = world.command("models pull a/b").env("TWEEDIE_LOCK_TIMEOUT", "1").output().unwrap().into();
    let message =
        format!("error: {}: another process has held this lock for 1 s; let it finish, or stop it\n", path.display());
    world.is_refused(&ran, "models pull a/b", 5, &message);
    world.refused("models remove a/b", 5, ".lock: another process has held this lock for 0 s");
    drop(lock);
    world.succeed("models pull a/b");
}

// 54
#[test]
fn without_the_network_or_without_being_asked_nothing_is_fetched() {
    let world = World::new();
    let begun = Instant::now();
    let offline = |line: &str| -> Ran { world.command(line).env("HF_HUB_OFFLINE", "1").output().unwrap().into() };
    let pull = format!("models pull {NAME}");
    let message = format!(
        "error: model {NAME}: HF_HUB_OFFLINE is set, so nothing is fetched; without it, `tweedie models pull {NAME}` fetches \
         it from {}/{REPOSITORY}\n",
        world.hub.endpoint()
    );
    world.is_refused(&offline(&pull), &pull, 4, &message);
    for model in [NAME, REPOSITORY] {
        let line = format!("sample --model {model} --size 16x16 -o out.png");
        let message = format!("`tweedie models pull {model}` fetches it from {}/{REPOSITORY}\n", world.hub.endpoint());
        world.refused(&line, 4, &message);
        world.is_refused(&offline(&format!("{line} --pull")), &line, 4, "HF_HUB_OFFLINE is set, so nothing is fetched");
    }
    assert!(world.hub.requests().is_empty(), "the hub was asked");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let line = format!("sample --model {NAME} --size 16x16 --steps 2 -o out.png --pull");
    assert_eq!(world.succeed(&line).code, 0);
    assert!(!world.hub.requests().is_empty());
    // What is there needs no network, and another file is not what was asked for.
    assert_eq!(offline(&pull).code, 0);
    assert_eq!(offline(&format!("{pull} --file config.json")).code, 0);
    let other = format!("{pull} --file other.safetensors");
    world.is_refused(&offline(&other), &other, 4, "HF_HUB_OFFLINE is set, so nothing is fetched");
    assert_eq!(offline(&format!("sample --model {NAME} --size 16x16 --steps 2 -o again.png --pull")).code, 0);
    assert!(world.hub.requests().is_empty(), "the hub was asked for what is there");
    let nobody: Ran =
        world.command("models pull a/b").env("HF_ENDPOINT", "http://127.0.0.1:1").output().unwrap().into();
    world.is_refused(&nobody, "models pull a/b", 4, "gave up after 5 repetitions");
}

// 53, 54: killed at any moment, it goes on where it was, and no partial file ever has a name that others read.
#[test]
fn a_fetch_that_is_killed_at_random_moments_ends_with_the_right_file() {
    let bytes = noise(1_500_000);
    let world = World::with_bytes(&bytes);
    world.hub.pace(25_000, Duration::from_millis(8));
    let (mut killed, mut whole, mut continued) = (0, 0, 0);
    let mut moments = scattered(200, 11).into_iter().map(|value| 30.0 + 170.0 * (value.abs() as f64));
    while killed < 20 {
        let mut child = world.start("models pull a/b");
        std::thread::sleep(Duration::from_millis(moments.next().unwrap() as u64));
        let ended = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        killed += usize::from(!ended);
        for path in [world.blob(&bytes), world.snapshot()] {
            if path.exists() {
                assert!(fs::read(&path).unwrap() == bytes, "{} is not the file, {killed} times killed", path.display());
            }
        }
        continued += world.hub.downloads().iter().filter(|request| range(request).is_some()).count();
        if ended {
            whole += 1;
            fs::remove_dir_all(world.cache()).unwrap();
        }
    }
    world.succeed("models pull a/b");
    assert!(fs::read(world.snapshot()).unwrap() == bytes);
    continued += world.hub.downloads().iter().filter(|request| range(request).is_some()).count();
    assert!(continued >= 10, "{continued} of {killed} went on where they were, {whole} were whole before");
    let left: Vec<_> = tree(&world.repository("models--a--b"));
    assert!(left.iter().all(|name| !name.contains("incomplete") && !name.contains(".tweedie-")), "{left:?}");
}
