//! What the environment says about the hub.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// A token of the hub. It is sent to the endpoint only and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token that is `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    #[cfg(feature = "hub")]
    pub(super) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Where models come from and where they are kept, by the variables that `huggingface_hub` reads, too.
///
/// | variable | meaning | default |
/// | --- | --- | --- |
/// | `HF_ENDPOINT` | address of the hub or of a mirror | `https://huggingface.co` |
/// | `HF_HOME` | folder of everything below | `$XDG_CACHE_HOME/huggingface`, `~/.cache/huggingface` |
/// | `HF_HUB_CACHE` | folder of the models | `$HF_HOME/hub` |
/// | `HF_TOKEN` | for repositories that are not open to all | the file `HF_TOKEN_PATH`, `$HF_HOME/token` |
/// | `HF_HUB_OFFLINE` | `1`: never use the network | |
/// | `HF_HUB_ETAG_TIMEOUT` | seconds to wait for a connection or an answer | 10 |
/// | `HF_HUB_DOWNLOAD_TIMEOUT` | seconds to wait for the next bytes of a file | 30 |
/// | `TWEEDIE_LOCK_TIMEOUT` | seconds to wait for another process that fetches the same file | 1800 |
///
/// <https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables>
#[derive(Clone, Debug)]
pub struct Settings {
    /// Without a slash at the end.
    pub endpoint: String,
    /// The folder with `models--owner--repo`.
    pub cache: PathBuf,
    /// For repositories that are not open to all.
    pub token: Option<Token>,
    /// Whether the network must not be used.
    pub offline: bool,
    /// For a connection and for the first line of an answer.
    pub answer_timeout: Duration,
    /// Between two pieces of a file.
    pub read_timeout: Duration,
    /// For a file that another process fetches.
    pub lock_timeout: Duration,
}

impl Settings {
    /// What the variables of this process say.
    pub fn from_env() -> Self {
        Self::from_variables(&|name| env::var_os(name), env::home_dir())
    }

    /// What `variable` says; an empty variable is none.
    pub fn from_variables(variable: &dyn Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text = |name: &str| set(name).and_then(|value| value.into_string().ok());
        let home = home.unwrap_or_default();
        let folder = |name: &str| {
            let path = PathBuf::from(set(name)?);
            Some(path.strip_prefix("~").map_or_else(|_| path.clone(), |rest| home.join(rest)))
        };
        let caches = folder("XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache"));
        let all = folder("HF_HOME").unwrap_or_else(|| caches.join("huggingface"));
        let cache =
            folder("HF_HUB_CACHE").or_else(|| folder("HUGGINGFACE_HUB_CACHE")).unwrap_or_else(|| all.join("hub"));
        let is_true = |name: &str| {
            text(name).is_some_and(|v| ["1", "ON", "YES", "TRUE"].contains(&v.to_ascii_uppercase().as_str()))
        };
        let in_file = || {
            if is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
                return None;
            }
            fs::read_to_string(folder("HF_TOKEN_PATH").unwrap_or_else(|| all.join("token"))).ok()
        };
        let token = text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN")).or_else(in_file);
        // A token is one word; whatever else came with it would end up in a header.
        let token = token.map(|token| token.trim().to_owned());
        let token = token.filter(|token| !token.is_empty() && token.chars().all(|c| c.is_ascii_graphic()));
        let seconds = |name: &str, default: u64| {
            Duration::from_secs(text(name).and_then(|value| value.parse().ok()).filter(|s| *s > 0).unwrap_or(default))
        };
        Self {
            endpoint: text("HF_ENDPOINT").map_or_else(|| ENDPOINT.into(), |e| e.trim_end_matches('/').to_owned()),
            cache,
            token: token.map(Token),
            offline: is_true("HF_HUB_OFFLINE"),
            answer_timeout: seconds("HF_HUB_ETAG_TIMEOUT", 10),
            read_timeout: seconds("HF_HUB_DOWNLOAD_TIMEOUT", 30),
            lock_timeout: seconds("TWEEDIE_LOCK_TIMEOUT", 1800),
        }
    }
}

const ENDPOINT: &str = "https://huggingface.co";

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
        Settings::from_variables(&find, Some("/home/me".into()))
    }

    #[test]
    fn folders_are_those_of_huggingface_hub() {
        for (variables, cache) in [
            (&[][..], "/home/me/.cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/h")], "/h/hub"),
            (&[("HF_HOME", "~/h")], "/home/me/h/hub"),
            (&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")], "/c"),
            (&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "")], "/h/hub"),
            (&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "/new")], "/new"),
        ] {
            assert_eq!(settings(variables).cache, Path::new(cache), "{variables:?}");
        }
    }

    #[test]
    fn the_endpoint_and_switches_are_read() {
        let plain = settings(&[]);
        assert_eq!((plain.endpoint.as_str(), plain.offline), ("https://huggingface.co", false));
        assert_eq!(settings(&[("HF_ENDPOINT", "http://mirror:80/hf/")]).endpoint, "http://mirror:80/hf");
        for (value, offline) in [("1", true), ("true", true), ("YES", true), ("0", false), ("", false), ("no", false)] {
            assert_eq!(settings(&[("HF_HUB_OFFLINE", value)]).offline, offline, "{value}");
        }
        assert_eq!(settings(&[("HF_HUB_DOWNLOAD_TIMEOUT", "7")]).read_timeout, Duration::from_secs(7));
        assert_eq!(settings(&[("HF_HUB_DOWNLOAD_TIMEOUT", "x")]).read_timeout, Duration::from_secs(30));
    }

    #[test]
    fn the_token_comes_from_the_variable_or_its_file_and_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("token"), "hf_file\n").unwrap();
        let home = folder.path().to_str().unwrap();
        assert_eq!(settings(&[("HF_HOME", home)]).token, Some(Token::new("hf_file")));
        let both = settings(&[("HF_HOME", home), ("HF_TOKEN", " hf_variable ")]);
        assert_eq!(both.token, Some(Token::new("hf_variable")));
        assert!(!format!("{both:?}").contains("hf_variable"));
        assert_eq!(settings(&[("HF_HOME", home), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).token, None);
        assert_eq!(settings(&[("HF_HOME", "/h"), ("HF_TOKEN", "a\r\nX-Evil: b")]).token, None);
    }
}
