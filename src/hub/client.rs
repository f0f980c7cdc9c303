//! Requests to the hub: redirects, proxies, the token, and which failures pass.

use super::pull::Event;
use super::{Settings, tls};
use crate::{Error, Result};
use std::env;
use std::io;
use std::time::Duration;
use ureq::http::{HeaderMap, Response, StatusCode};
use ureq::tls::TlsConfig;
use ureq::{Agent, Body, Proxy};

/// How often a request that failed is repeated while nothing arrives.
const RETRIES: u32 = 5;
/// Before the first repetition; doubled before each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause that a server can ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How many addresses an answer may send us on to.
const REDIRECTS: usize = 5;
/// The longest list of a repository's files that is read.
const LONGEST_LIST: u64 = 16 << 20;

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Worth another try: the server is busy, the connection was cut.
    Passing {
        /// What happened.
        reason: String,
        /// How long the server asks to wait.
        pause: Option<Duration>,
    },
    /// The same would happen again.
    Lasting(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Lasting(error)
    }
}

/// Who is asked.
#[derive(Debug)]
pub(super) struct Client<'a> {
    settings: &'a Settings,
    /// The model as the user named it, for messages.
    model: &'a str,
    tls: Result<TlsConfig, String>,
    direct: Agent,
    proxied: [Option<Agent>; 2],
    /// Hosts that are asked directly.
    exempt: Vec<String>,
}

/// What a request asks for beside the address.
#[derive(Clone, Debug, Default)]
pub(super) struct Ask {
    /// Only the headers.
    pub(super) head: bool,
    /// From this byte on.
    pub(super) from: u64,
    /// Only if the answer would have this etag.
    pub(super) if_match: Option<String>,
}

impl<'a> Client<'a> {
    /// # Errors
    /// `Config` for a proxy that is no address.
    pub(super) fn new(settings: &'a Settings, model: &'a str) -> Result<Self> {
        let tls = tls::config();
        let agent = |proxy: Option<Proxy>| {
            let mut config = Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .proxy(proxy)
                .user_agent(concat!("tweedie/", env!("CARGO_PKG_VERSION")))
                // A compressed answer would have another length than the file.
                .accept_encoding("identity")
                .timeout_connect(Some(settings.answer_timeout))
                .timeout_recv_response(Some(settings.answer_timeout))
                .timeout_per_read(Some(settings.read_timeout))
                .timeout_per_write(Some(settings.read_timeout));
            if let Ok(tls) = &tls {
                config = config.tls_config(tls.clone());
            }
            config.build().new_agent()
        };
        let proxied = |names: [&str; 4]| -> Result<Option<Agent>> {
            let Some((name, value)) = names.iter().find_map(|name| Some((name, variable(name)?))) else {
                return Ok(None);
            };
            let proxy = Proxy::new(&value).map_err(|error| Error::Config {
                name: (*name).into(),
                // It may hold a password.
                got: "no address of a proxy".into(),
                expected: format!("http://host:port ({error})"),
            });
            Ok(Some(agent(Some(proxy?))))
        };
        Ok(Self {
            settings,
            model,
            direct: agent(None),
            proxied: [
                proxied(["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])?,
                proxied(["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])?,
            ],
            exempt: variable("no_proxy").or_else(|| variable("NO_PROXY")).as_deref().map(list).unwrap_or_default(),
            tls,
        })
    }

    /// Repeats `once` while it fails for reasons that pass and what it counts, its argument, stays the same.
    ///
    /// # Errors
    /// Those of `once` that last, or its last one.
    pub(super) fn persist<T>(
        &self,
        tell: &mut dyn FnMut(Event<'_>) -> Result<()>,
        mut once: impl FnMut(&mut u64, &mut dyn FnMut(Event<'_>) -> Result<()>) -> Result<T, Trouble>,
    ) -> Result<T> {
        let (mut progress, mut failures) = (0, 0);
        loop {
            let before = progress;
            let (reason, asked) = match once(&mut progress, tell) {
                Ok(value) => return Ok(value),
                Err(Trouble::Lasting(error)) => return Err(error),
                Err(Trouble::Passing { reason, pause }) => (reason, pause),
            };
            failures = if progress > before { 1 } else { failures + 1 };
            if failures > RETRIES {
                return Err(self.refuse(format!("{reason}; gave up after {RETRIES} repetitions")));
            }
            let pause = asked.unwrap_or(FIRST_PAUSE * 2u32.pow(failures - 1)).min(LONGEST_PAUSE);
            tell(Event::Again { reason: &reason, pause })?;
            let mut left = pause;
            while !left.is_zero() {
                tell(Event::Idle)?;
                let slice = left.min(Duration::from_millis(100));
                std::thread::sleep(slice);
                left -= slice;
            }
        }
    }

    /// One request, wherever the hub sends it on to: the last answer, the headers of the first and the last address.
    pub(super) fn follow(&self, url: &str, ask: &Ask) -> Result<Followed, Trouble> {
        let mut address = url.to_owned();
        let mut first: Option<HeaderMap> = None;
        for _ in 0..=REDIRECTS {
            let response = self.send(&address, ask)?;
            let headers = response.headers().clone();
            let status = response.status();
            // Headers are all that is asked for, and the first answer about a large file has them.
            let enough = ask.head && headers.contains_key("x-linked-etag");
            let location = headers.get("location").and_then(|value| value.to_str().ok()).map(|l| resolve(&address, l));
            let first = first.get_or_insert(headers).clone();
            match location {
                Some(location) if status.is_redirection() && !enough => {
                    if is_https(&address) && !is_https(&location) {
                        let (from, to) = (without_query(&address), without_query(&location));
                        return Err(self.refuse(format!("{from} sends on to {to}, which is not encrypted")).into());
                    }
                    address = location;
                }
                _ => return Ok(Followed { response, first, address }),
            }
        }
        Err(self.refuse(format!("{url} sends on more than {REDIRECTS} times")).into())
    }

    /// The text of the answer to `url`.
    pub(super) fn text(&self, url: &str) -> Result<String, Trouble> {
        let Followed { mut response, address, .. } = self.follow(url, &Ask::default())?;
        if response.status() != StatusCode::OK {
            return Err(self.status(&response, &address));
        }
        let read = response.body_mut().with_config().limit(LONGEST_LIST).read_to_vec();
        let bytes = read.map_err(|error| self.failed(&address, &error))?;
        String::from_utf8(bytes).map_err(|_| self.refuse(format!("the answer of {address} is no text")).into())
    }

    fn send(&self, url: &str, ask: &Ask) -> Result<Response<Body>, Trouble> {
        let https = is_https(url);
        if let (true, Err(reason)) = (https, &self.tls) {
            let advice = "HF_ENDPOINT names a mirror over http, and a file fetched by hand works as well";
            return Err(self.refuse(format!("https {reason}; {advice}")).into());
        }
        let host = host(url);
        let exempt = self.exempt.iter().any(|entry| covers(entry, host));
        let proxied = self.proxied[usize::from(!https)].as_ref().filter(|_| !exempt);
        let agent = proxied.unwrap_or(&self.direct);
        let mut request = if ask.head { agent.head(url) } else { agent.get(url) };
        // The token is for the hub alone, not for where it sends us, and it does not travel in the clear: a proxy would read
        // what goes to this machine over http.
        let private = https || (is_loopback(host) && proxied.is_none());
        let own = origin(url) == origin(&self.settings.endpoint) && private;
        if let (true, Some(token)) = (own, &self.settings.token) {
            request = request.header("Authorization", format!("Bearer {}", token.secret()));
        }
        if ask.from > 0 {
            request = request.header("Range", format!("bytes={}-", ask.from));
        }
        if let Some(etag) = &ask.if_match {
            request = request.header("If-Match", etag);
        }
        request.call().map_err(|error| self.failed(url, &error))
    }

    /// An error of the connection; most of them pass.
    fn failed(&self, url: &str, error: &ureq::Error) -> Trouble {
        let text = format!("{}: {error}", without_query(url));
        match error {
            ureq::Error::Io(cause) if cause.kind() == io::ErrorKind::InvalidData => self.refuse(text).into(),
            ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed | ureq::Error::Protocol(_) => {
                Trouble::Passing { reason: text, pause: None }
            }
            ureq::Error::HostNotFound => Trouble::Lasting(
                self.refuse(format!("{text}; is this machine on the network? HTTPS_PROXY is honoured")),
            ),
            _ => self.refuse(text).into(),
        }
    }

    /// What a status other than the one hoped for means.
    pub(super) fn status(&self, response: &Response<Body>, url: &str) -> Trouble {
        let status = response.status();
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let url = without_query(url);
        if status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429) {
            let pause = header("retry-after").and_then(|text| text.parse().ok()).map(Duration::from_secs);
            return Trouble::Passing { reason: format!("{url}: status {status}"), pause };
        }
        let page = &self.settings.endpoint;
        let reason = match (status.as_u16(), header("x-error-code")) {
            (_, Some("RevisionNotFound")) => "there is no such revision".into(),
            (_, Some("EntryNotFound")) => "there is no such file in the repository".into(),
            (_, Some("GatedRepo")) => format!("its terms have to be accepted on {page}, then HF_TOKEN gives access"),
            (401 | 403, _) if self.settings.token.is_some() => {
                "there is no such repository, or the token in use gives no access to it".into()
            }
            (401 | 403, _) => "there is no such repository, or it is not open to all: HF_TOKEN gives access".into(),
            (404, _) => "there is no such repository, revision or file".into(),
            _ => "the hub refuses".into(),
        };
        self.refuse(format!("{reason} ({url}: status {status})")).into()
    }

    pub(super) fn refuse(&self, reason: String) -> Error {
        Error::Model { model: self.model.into(), reason }
    }
}

/// Where a request led.
#[derive(Debug)]
pub(super) struct Followed {
    /// The last answer.
    pub(super) response: Response<Body>,
    /// The headers of the first one, the hub's own.
    pub(super) first: HeaderMap,
    /// Who gave the last one.
    pub(super) address: String,
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(|entry| entry.trim().to_ascii_lowercase()).filter(|entry| !entry.is_empty()).collect()
}

/// Whether an entry of `NO_PROXY` covers a host: `*`, the host, or a domain above it.
fn covers(entry: &str, host: &str) -> bool {
    let entry = entry.trim_start_matches("*.").trim_start_matches('.');
    let host = host.to_ascii_lowercase();
    entry == "*" || host == entry || host.strip_suffix(entry).is_some_and(|rest| rest.ends_with('.'))
}

fn is_https(url: &str) -> bool {
    url.starts_with("https://")
}

/// `https://host:port`.
fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
    &url[..end]
}

fn host(url: &str) -> &str {
    let authority = origin(url).split("://").last().unwrap_or_default();
    let authority = authority.rsplit('@').next().unwrap_or_default();
    match authority.strip_prefix('[') {
        Some(six) => six.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Where a `Location` leads that stands in an answer of `base`.
fn resolve(base: &str, location: &str) -> String {
    let scheme = if is_https(base) { "https:" } else { "http:" };
    if location.starts_with("http://") || location.starts_with("https://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}{location}")
    } else if location.starts_with('/') {
        format!("{}{location}", origin(base))
    } else {
        let path = base.split(['?', '#']).next().unwrap_or_default();
        let folder = path.rfind('/').filter(|at| *at >= origin(base).len()).map_or(path, |at| &path[..at]);
        format!("{folder}/{location}")
    }
}

/// An address without what is signed in it, which is a key to the file.
fn without_query(url: &str) -> &str {
    url.split('?').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_addresses_are_found() {
        assert_eq!(origin("https://a.b:1/c?d=/e"), "https://a.b:1");
        assert_eq!(origin("http://a.b?x"), "http://a.b");
        assert_eq!((host("http://me@a.b:80/c"), host("http://[::1]:80/c")), ("a.b", "::1"));
        assert!(is_loopback("127.0.0.1") && is_loopback("::1") && is_loopback("localhost") && !is_loopback("a.b"));
        for (location, expected) in [
            ("https://x.y/z", "https://x.y/z"),
            ("//x.y/z", "http://x.y/z"),
            ("/z?q", "http://a.b:1/z?q"),
            ("z", "http://a.b:1/c/z"),
        ] {
            assert_eq!(resolve("http://a.b:1/c/d?e/f", location), expected);
        }
        assert_eq!(resolve("http://a.b", "z"), "http://a.b/z");
        assert_eq!(without_query("https://cdn/x?Signature=secret"), "https://cdn/x");
    }

    #[test]
    fn exemptions_from_the_proxy_are_hosts_and_domains() {
        for (entry, host, expected) in [
            ("*", "a.b", true),
            ("a.b", "A.b", true),
            ("a.b", "x.a.b", true),
            (".a.b", "x.a.b", true),
            ("*.a.b", "x.a.b", true),
            ("a.b", "xa.b", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("a.b", "b", false),
        ] {
            assert_eq!(covers(entry, host), expected, "{entry} {host}");
        }
    }
}
