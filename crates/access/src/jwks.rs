//! The client of the server that publishes the issuer's keys.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use ureq::Agent;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// How long a fetch may take.
pub(crate) const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest key set that is read: those of large providers, with certificates, take 20 KiB.
const MAX_SET_BYTES: u64 = 1024 * 1024;

/// Where an issuer publishes its keys: https, or http to loopback.
#[derive(Debug, Clone)]
pub struct JwksUrl(Uri);

impl FromStr for JwksUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url: Uri = text.parse().map_err(|_| "expected a URL such as https://login.example/keys")?;
        let authority = url.authority().ok_or("expected a URL such as https://login.example/keys")?;
        if authority.as_str().contains('@') {
            return Err("a URL with a user or a password is not supported");
        }
        let host = authority.host().trim_matches(['[', ']']);
        let is_loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        match url.scheme_str() {
            Some("https") => Ok(JwksUrl(url)),
            Some("http") if is_loopback => Ok(JwksUrl(url)),
            _ => Err("expected https, or http to a loopback address: anyone on the way could replace the keys"),
        }
    }
}

impl JwksUrl {
    /// Fetches the key set. Blocks.
    pub(crate) fn fetch(&self) -> Result<Vec<u8>, String> {
        let answer = self.agent().get(&self.0).call().map_err(|error| format!("cannot be fetched: {error}"))?;
        // A redirect may lead anywhere, so it is not followed.
        if answer.status() != 200 {
            return Err(format!("was answered with status {}", answer.status().as_u16()));
        }
        let body = answer.into_body().into_with_config().limit(MAX_SET_BYTES).read_to_vec();
        body.map_err(|error| format!("cannot be read: {error}"))
    }

    /// A client for one fetch, so that it has the system's present certificate authorities and no connection that went stale.
    fn agent(&self) -> Agent {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(FETCH_TIMEOUT));
        if self.0.scheme_str() == Some("https") {
            let roots: Vec<_> = rustls_native_certs::load_native_certs().certs;
            let roots: Vec<_> = roots.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
            let tls = TlsConfig::builder()
                .root_certs(RootCerts::new_with_certs(&roots))
                .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()));
            config = config.https_only(true).tls_config(tls.build());
        } else {
            config = config.proxy(None);
        }
        config.build().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_by_https_or_from_loopback() {
        for url in ["https://login.example/keys?a=b", "http://127.0.0.1:1/", "http://[::1]/keys", "http://localhost:8/"]
        {
            assert!(url.parse::<JwksUrl>().is_ok(), "{url}");
        }
        for url in [
            "",
            "keys",
            "/keys",
            "http://login.example/keys",
            "http://10.0.0.1/",
            "ftp://localhost/",
            "http://localhost.evil.example/",
            "https://u:s3cret@login.example/",
        ] {
            let error = url.parse::<JwksUrl>().unwrap_err();
            assert!(!error.contains("s3cret"), "{url}");
        }
    }
}
