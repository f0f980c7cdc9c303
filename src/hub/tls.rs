//! The cryptography of `https`, without a C toolchain: see the feature `hub` in `Cargo.toml`.

use ureq::tls::TlsConfig;

/// How `https` is spoken.
///
/// # Errors
/// What is missing on this machine.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) fn config() -> Result<TlsConfig, String> {
    use std::sync::Arc;
    use ureq::tls::{PemItem, RootCerts, TlsProvider, parse_pem};

    // What graviola asserts, asked before so that it is an error and no panic.
    #[cfg(target_arch = "x86_64")]
    let missing = [
        ("adx", std::arch::is_x86_feature_detected!("adx")),
        ("aes", std::arch::is_x86_feature_detected!("aes")),
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("bmi1", std::arch::is_x86_feature_detected!("bmi1")),
        ("bmi2", std::arch::is_x86_feature_detected!("bmi2")),
        ("pclmulqdq", std::arch::is_x86_feature_detected!("pclmulqdq")),
    ];
    #[cfg(target_arch = "aarch64")]
    let missing = [
        ("aes", std::arch::is_aarch64_feature_detected!("aes")),
        ("neon", std::arch::is_aarch64_feature_detected!("neon")),
        ("pmull", std::arch::is_aarch64_feature_detected!("pmull")),
        ("sha2", std::arch::is_aarch64_feature_detected!("sha2")),
    ];
    if let Some((name, _)) = missing.iter().find(|(_, there)| !there) {
        return Err(format!("needs the processor's {name}, which this one lacks"));
    }
    // A company's proxy that opens connections signs them itself; the variable is the one that OpenSSL and others read.
    let roots = match std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()) {
        None => RootCerts::WebPki,
        Some(path) => {
            let text =
                std::fs::read(&path).map_err(|e| format!("cannot read SSL_CERT_FILE {}: {e}", path.display()))?;
            let certificates = parse_pem(&text).filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            });
            RootCerts::Specific(Arc::new(certificates.collect()))
        }
    };
    Ok(TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(roots)
        .unversioned_rustls_crypto_provider(Arc::new(rustls_graviola::default_provider()))
        .build())
}

/// How `https` is spoken.
///
/// # Errors
/// Always: there is no cryptography for this processor.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn config() -> Result<TlsConfig, String> {
    Err(format!("is not there on {}", std::env::consts::ARCH))
}
