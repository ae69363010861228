//! The environment variables and the `.env` file.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;

use crate::dot_env;
use crate::settings::NoSettings;

/// The name of the file in the working directory. Parent directories are not searched.
pub const ENV_FILE: &str = ".env";

/// The variables of the environment and of `.env` that are not empty; the environment has precedence. Variables that
/// Kubernetes sets for its services are left out.
#[derive(Default)]
pub struct Variables(BTreeMap<OsString, Found>);

/// A value and its place, as text behind the variable's name in messages.
pub(crate) type Found = (OsString, &'static str);

impl Variables {
    /// Merges `environment` and the text of an `.env` file. Fails on a malformed line.
    pub fn new(
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        dot_env: &str,
    ) -> Result<Variables, NoSettings> {
        let file = dot_env::parse(dot_env).map_err(|reason| NoSettings::Wrong(format!("{ENV_FILE} {reason}")))?;
        let file = file.into_iter().map(|(name, value)| (OsString::from(name), (OsString::from(value), " (in .env)")));
        // A later line replaces an earlier one.
        let file: BTreeMap<OsString, Found> = file.collect();
        let environment = environment.into_iter().map(|(name, value)| (name, (value, "")));
        let is_set = |(name, (value, _)): &(OsString, Found)| !value.is_empty() && !is_service_link(name, value);
        Ok(Variables(file.into_iter().chain(environment).filter(is_set).collect()))
    }

    /// Reads the environment of the process and its `.env` file.
    pub(crate) fn of_process() -> Result<Variables, NoSettings> {
        let dot_env = match fs::read_to_string(ENV_FILE) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return Err(NoSettings::Wrong(format!("{ENV_FILE} cannot be read: {error}"))),
        };
        Variables::new(env::vars_os(), &dot_env)
    }

    pub(crate) fn get(&self, name: &OsStr) -> Option<&Found> {
        self.0.get(name)
    }

    /// The variables whose names begin with `prefix`, without the prefix.
    pub(crate) fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a OsStr)> {
        self.0
            .iter()
            .filter_map(move |(name, (value, _))| Some((name.to_str()?.strip_prefix(prefix)?, value.as_os_str())))
    }
}

/// Whether this is a Kubernetes service link, which every pod gets for each service of the namespace. For a service called
/// `card` the links are `CARD_SERVICE_HOST`, `CARD_SERVICE_PORT` (with `_` and the port's name after it,
/// too), `CARD_PORT`, and `CARD_PORT_8082_TCP` with `_PROTO`, `_PORT` and `_ADDR`. A setting may have such a name, but not
/// such a value.
fn is_service_link(name: &OsStr, value: &OsStr) -> bool {
    const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];
    let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { return false };
    let is_number = |text: &str| text.parse::<u16>().is_ok();
    let is_protocol = |text: &str| PROTOCOLS.iter().any(|protocol| protocol.eq_ignore_ascii_case(text));
    let is_url = |text: &str| text.split_once("://").is_some_and(|(protocol, _)| is_protocol(protocol));
    let name = format!("_{name}");
    if name.ends_with("_SERVICE_HOST") {
        return value.parse::<IpAddr>().is_ok();
    }
    if let Some((_, port)) = name.rsplit_once("_SERVICE_PORT") {
        return (port.is_empty() || port.starts_with('_')) && is_number(value);
    }
    if name.ends_with("_PORT") && is_url(value) {
        return true;
    }
    // The name of a service may contain `_PORT_` itself.
    let Some((_, port)) = name.rsplit_once("_PORT_") else { return false };
    match port.split('_').collect::<Vec<_>>()[..] {
        [number, protocol, ref what @ ..] => {
            is_number(number) && is_protocol(protocol) && matches!(what, [] | ["PROTO" | "PORT" | "ADDR"])
        }
        _ => false,
    }
}
