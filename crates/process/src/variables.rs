//! Where settings come from besides flags: the environment and the `.env` file.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;

use crate::dot_env;
use crate::settings::NoSettings;

/// The file that is read from the folder the program is started in; those above it are not looked at.
pub const ENV_FILE: &str = ".env";

/// The environment variables that are set to something, and the lines of `.env` where the environment has nothing. What
/// Kubernetes sets for its services is left out.
#[derive(Default)]
pub struct Variables(BTreeMap<OsString, Found>);

/// A value, and where it was found: text that follows the variable's name.
pub(crate) type Found = (OsString, &'static str);

impl Variables {
    /// Those that `environment` and the text of an `.env` file come to; on failure the line that cannot be read.
    pub fn new(
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        dot_env: &str,
    ) -> Result<Variables, NoSettings> {
        let file = dot_env::parse(dot_env).map_err(|reason| NoSettings::Wrong(format!("{ENV_FILE} {reason}")))?;
        let file = file.into_iter().map(|(name, value)| (OsString::from(name), (OsString::from(value), " (in .env)")));
        // Later ones replace earlier ones of the same name, but a variable set to nothing counts as unset.
        let file: BTreeMap<OsString, Found> = file.collect();
        let environment = environment.into_iter().map(|(name, value)| (name, (value, "")));
        let is_set = |(name, (value, _)): &(OsString, Found)| !value.is_empty() && !is_service_link(name, value);
        Ok(Variables(file.into_iter().chain(environment).filter(is_set).collect()))
    }

    /// Those of this process.
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

    /// Those whose names begin with `prefix`, by the rest of the name.
    pub(crate) fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a OsStr)> {
        self.0
            .iter()
            .filter_map(move |(name, (value, _))| Some((name.to_str()?.strip_prefix(prefix)?, value.as_os_str())))
    }
}

/// Whether Kubernetes has set this variable, as it does in every pod for each service of the namespace ("service links").
/// For a service called `card` these are `CARD_SERVICE_HOST`, `CARD_SERVICE_PORT` (with `_` and the port's name behind it,
/// too), `CARD_PORT`, and `CARD_PORT_8082_TCP` with `_PROTO`, `_PORT` and `_ADDR`. A setting may have one of these names; no
/// setting has such a value.
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
    // A service's own name may have `_PORT_` in it, too.
    let Some((_, port)) = name.rsplit_once("_PORT_") else { return false };
    match port.split('_').collect::<Vec<_>>()[..] {
        [number, protocol, ref what @ ..] => {
            is_number(number) && is_protocol(protocol) && matches!(what, [] | ["PROTO" | "PORT" | "ADDR"])
        }
        _ => false,
    }
}
