//! A hub on loopback: the routes, headers and redirects of the real one, and everything that can go wrong with it.

use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A file of a repository.
#[derive(Clone)]
pub(crate) struct HubFile {
    pub(crate) bytes: Vec<u8>,
    /// SHA-256 for a large file, which is sent by the other host; git's hash for a small one, sent by the hub.
    pub(crate) etag: String,
    pub(crate) large: bool,
}

impl HubFile {
    pub(crate) fn large(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        let etag = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { bytes, etag, large: true }
    }

    /// `etag`: what `git hash-object` says.
    pub(crate) fn small(bytes: impl Into<Vec<u8>>, etag: &str) -> Self {
        Self { bytes: bytes.into(), etag: etag.into(), large: false }
    }
}

/// What happens to one request of a file's contents.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Status(u16),
    /// A status that says when to come back, in seconds.
    Later(u16, u64),
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// The whole file, whatever was asked for.
    NoRange,
    /// As `NoRange`, and cut.
    NoRangeCut(usize),
    /// The right range of another file.
    OtherBytes,
    /// More than the file has.
    TooMuch,
    /// After so many bytes nothing more comes, the connection stays open.
    Stall(usize),
    /// A range that was not asked for.
    WrongRange,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
}

#[derive(Default)]
struct State {
    /// By `owner/repo`.
    repositories: BTreeMap<String, BTreeMap<String, HubFile>>,
    requests: Vec<Request>,
    /// Of the contents of large files, one each.
    faults: VecDeque<Fault>,
    /// Of everything else.
    hub_faults: VecDeque<Fault>,
    /// Bytes at a time, and the pause after each.
    pace: Option<(usize, Duration)>,
    /// Etags of the host that sends large files; none changes.
    sender_etag: String,
    token: Option<String>,
    commit: String,
}

pub(crate) struct Hub {
    state: Arc<Mutex<State>>,
    hub: SocketAddr,
    cdn: SocketAddr,
    stop: Arc<AtomicBool>,
}

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

impl Hub {
    pub(crate) fn new() -> Self {
        let state = Arc::new(Mutex::new(State {
            commit: COMMIT.into(),
            sender_etag: "\"sender-1\"".into(),
            ..State::default()
        }));
        let stop = Arc::new(AtomicBool::new(false));
        // Two hosts, as far as addresses tell.
        let [hub, cdn] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [hub_at, cdn_at] = [&hub, &cdn].map(|listener| listener.local_addr().unwrap());
        for listener in [hub, cdn] {
            let (state, stop) = (Arc::clone(&state), Arc::clone(&stop));
            thread::spawn(move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let (state, stop) = (Arc::clone(&state), Arc::clone(&stop));
                    // A client that goes away is none of the hub's business.
                    thread::spawn(move || drop(serve(stream.unwrap(), &state, cdn_at, &stop)));
                }
            });
        }
        Self { state, hub: hub_at, cdn: cdn_at, stop }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.hub)
    }

    pub(crate) fn port(&self) -> u16 {
        self.hub.port()
    }

    pub(crate) fn add(&self, repository: &str, name: &str, file: HubFile) {
        self.state.lock().unwrap().repositories.entry(repository.into()).or_default().insert(name.into(), file);
    }

    /// A later commit.
    pub(crate) fn commit(&self, commit: &str) {
        self.state.lock().unwrap().commit = commit.into();
    }

    pub(crate) fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().unwrap().faults.extend(faults);
    }

    pub(crate) fn fail_hub(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().unwrap().hub_faults.extend(faults);
    }

    pub(crate) fn pace(&self, bytes: usize, pause: Duration) {
        self.state.lock().unwrap().pace = Some((bytes, pause));
    }

    pub(crate) fn require(&self, token: &str) {
        self.state.lock().unwrap().token = Some(token.into());
    }

    pub(crate) fn sender_etag(&self, etag: &str) {
        self.state.lock().unwrap().sender_etag = etag.into();
    }

    /// The requests so far, which are forgotten.
    pub(crate) fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    /// The requests of contents of large files so far; all are forgotten.
    pub(crate) fn downloads(&self) -> Vec<Request> {
        self.requests().into_iter().filter(|request| request.path.starts_with("/cdn/")).collect()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for address in [self.hub, self.cdn] {
            drop(TcpStream::connect(address));
        }
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>, cdn: SocketAddr, stop: &AtomicBool) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    while let Some(request) = read(&mut reader)? {
        state.lock().unwrap().requests.push(request.clone());
        if !answer(&request, &mut stream, state, cdn, stop)? {
            return Ok(());
        }
    }
    Ok(())
}

fn read(reader: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default().into(), words.next().unwrap_or_default().into());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            return Ok(Some(Request { method, path, headers }));
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
}

/// Writes an answer; whether the connection goes on.
fn answer(
    request: &Request,
    stream: &mut TcpStream,
    state: &Mutex<State>,
    cdn: SocketAddr,
    stop: &AtomicBool,
) -> std::io::Result<bool> {
    let is_cdn = request.path.starts_with("/cdn/");
    let (fault, pace, repositories, token, commit, sender) = {
        let mut state = state.lock().unwrap();
        let fault = if is_cdn { state.faults.pop_front() } else { state.hub_faults.pop_front() };
        let State { pace, repositories, token, commit, sender_etag, .. } = &*state;
        (fault, *pace, repositories.clone(), token.clone(), commit.clone(), sender_etag.clone())
    };
    let empty = |stream: &mut TcpStream, status: u16, headers: &str| -> std::io::Result<bool> {
        write!(stream, "HTTP/1.1 {status} Reason\r\nContent-Length: 0\r\n{headers}\r\n")?;
        Ok(true)
    };
    match fault {
        Some(Fault::Status(status)) => return empty(stream, status, ""),
        Some(Fault::Later(status, seconds)) => return empty(stream, status, &format!("Retry-After: {seconds}\r\n")),
        _ => {}
    }
    let path = request.path.split('?').next().unwrap_or_default();
    if let Some(hash) = path.strip_prefix("/cdn/") {
        let found = repositories.values().flat_map(BTreeMap::values).find(|file| file.large && file.etag == hash);
        return match found {
            Some(file) => contents(request, stream, file, (fault, pace, stop), &format!("ETag: {sender}\r\n"), &sender),
            None => empty(stream, 404, ""),
        };
    }
    if token.is_some_and(|token| request.headers.get("authorization") != Some(&format!("Bearer {token}"))) {
        return empty(stream, 401, "");
    }
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts[..] {
        ["api", "models", owner, name, "revision", revision] => {
            let Some(files) = repositories.get(&format!("{owner}/{name}")) else {
                return empty(stream, 404, "X-Error-Code: RepoNotFound\r\n");
            };
            if !(["main", "a%2Fb"].contains(&revision) || revision == commit) {
                return empty(stream, 404, "X-Error-Code: RevisionNotFound\r\n");
            }
            let siblings: Vec<_> = files.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
            let text = serde_json::json!({ "sha": commit, "siblings": siblings }).to_string();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())?;
            Ok(true)
        }
        [owner, name, "resolve", revision, ref file @ ..] if revision == commit => {
            let file = repositories.get(&format!("{owner}/{name}")).and_then(|files| files.get(&file.join("/")));
            let Some(file) = file else { return empty(stream, 404, "X-Error-Code: EntryNotFound\r\n") };
            if file.large {
                let (etag, size) = (&file.etag, file.bytes.len());
                let headers = format!(
                    "X-Repo-Commit: {commit}\r\nX-Linked-Etag: \"{etag}\"\r\nX-Linked-Size: {size}\r\nETag: \"pointer\"\r\n\
                     Location: http://{cdn}/cdn/{etag}?Signature=secret\r\n"
                );
                return empty(stream, 302, &headers);
            }
            let etag = format!("\"{}\"", file.etag);
            let headers = format!("X-Repo-Commit: {commit}\r\nETag: {etag}\r\n");
            contents(request, stream, file, (None, None, stop), &headers, &etag)
        }
        _ => empty(stream, 404, ""),
    }
}

/// The bytes that are asked for, as far as the fault lets them through.
fn contents(
    request: &Request,
    stream: &mut TcpStream,
    file: &HubFile,
    (fault, pace, stop): (Option<Fault>, Option<(usize, Duration)>, &AtomicBool),
    headers: &str,
    etag: &str,
) -> std::io::Result<bool> {
    let total = file.bytes.len();
    let no_range = matches!(fault, Some(Fault::NoRange | Fault::NoRangeCut(_)));
    let range = request.headers.get("range").filter(|_| !no_range);
    let from: usize =
        range.map_or(0, |range| range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap());
    if request.headers.get("if-match").is_some_and(|wanted| wanted != etag) {
        write!(stream, "HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n")?;
        return Ok(true);
    }
    if from > 0 && from >= total {
        write!(stream, "HTTP/1.1 416 Range\r\nContent-Range: bytes */{total}\r\nContent-Length: 0\r\n\r\n")?;
        return Ok(true);
    }
    let mut body = file.bytes[from..].to_vec();
    match fault {
        Some(Fault::OtherBytes) => body.iter_mut().for_each(|byte| *byte ^= 1),
        Some(Fault::TooMuch) => body.extend([0; 1000]),
        _ => {}
    }
    let shown = if matches!(fault, Some(Fault::WrongRange)) { from.saturating_sub(7) } else { from };
    let first = match range {
        Some(_) => format!("HTTP/1.1 206 Partial\r\nContent-Range: bytes {shown}-{}/{total}\r\n", total - 1),
        None => "HTTP/1.1 200 OK\r\n".into(),
    };
    write!(stream, "{first}Content-Length: {}\r\nAccept-Ranges: bytes\r\n{headers}\r\n", body.len())?;
    if request.method == "HEAD" {
        return Ok(true);
    }
    let (end, stall) = match fault {
        Some(Fault::Cut(bytes) | Fault::NoRangeCut(bytes)) => (bytes.min(body.len()), false),
        Some(Fault::Stall(bytes)) => (bytes.min(body.len()), true),
        _ => (body.len(), false),
    };
    let (piece, pause) = pace.unwrap_or((1 << 20, Duration::ZERO));
    for bytes in body[..end].chunks(piece) {
        stream.write_all(bytes)?;
        thread::sleep(pause);
    }
    while stall && !stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(20));
    }
    Ok(end == body.len() && !stall)
}

/// A proxy that opens connections to one address, whatever is asked for; the hosts that were asked for.
pub(crate) fn proxy(to: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let log = Arc::clone(&log);
            thread::spawn(move || -> std::io::Result<()> {
                let request = read(&mut BufReader::new(client.try_clone()?))?;
                let Some(request) = request.filter(|request| request.method == "CONNECT") else { return Ok(()) };
                log.lock().unwrap().push(request.path.clone());
                // Large files come from another port of the same machine.
                let port: u16 = request.path.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(to.port());
                let mut server = TcpStream::connect((to.ip(), port))?;
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
                let (mut up, mut down) = (client.try_clone()?, server.try_clone()?);
                let forth = thread::spawn(move || copy(&mut up, &mut down));
                copy(&mut server, &mut client);
                let _ = forth.join();
                Ok(())
            });
        }
    });
    (address, asked)
}

fn copy(from: &mut TcpStream, to: &mut TcpStream) {
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        if to.write_all(&piece[..count]).is_err() {
            return;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}
