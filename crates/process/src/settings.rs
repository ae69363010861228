//! Parses flags, environment variables and a `.env` file, in this order of precedence, into a clap struct.
//!
//! A wrong setting stops the start with one line that names it and never contains a value that may be a secret. A variable
//! that is set to the empty string counts as unset, because compose files set variables that way. The environment of the
//! process is not changed.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{Write as _, stdout};
use std::net::IpAddr;
use std::process::exit;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, Parser};

use crate::Variables;

/// The exit status after a wrong setting, as with clap.
const USAGE_STATUS: i32 = 2;

/// Why there are no settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoSettings {
    /// Help or the version was requested. The text is for stdout.
    Asked(String),
    /// A setting is wrong. The text is one line without `error:` before it.
    Wrong(String),
}

/// Returns the settings of this process and its variables. Prints help, the version or the error and exits if there are no
/// settings.
pub fn parse<T: Parser>() -> (T, Variables) {
    let parsed =
        Variables::of_process().and_then(|variables| Ok((try_parse_from(env::args_os(), &variables)?, variables)));
    match parsed {
        Ok(parsed) => parsed,
        Err(NoSettings::Asked(text)) => {
            let _gone = stdout().write_all(text.as_bytes());
            exit(0)
        }
        Err(NoSettings::Wrong(line)) => {
            eprintln!("error: {line}");
            exit(USAGE_STATUS)
        }
    }
}

/// Parses `args`, which start with the program's name, and `variables`. Does not affect the process.
pub fn try_parse_from<T: Parser>(
    args: impl IntoIterator<Item = OsString>,
    variables: &Variables,
) -> Result<T, NoSettings> {
    let args: Vec<OsString> = args.into_iter().collect();
    let mut named = Vec::new();
    let command = with_variables(T::command(), &mut named, variables);
    let parsed = command.try_get_matches_from(&args).and_then(|matches| T::from_arg_matches(&matches));
    parsed.map_err(|error| match error.use_stderr() {
        true => NoSettings::Wrong(one_line(&error, &named, &args)),
        false => NoSettings::Asked(error.to_string()),
    })
}

/// Parses an address to bind to, for `#[arg(value_parser = process::bind_address)]`.
pub fn bind_address(text: &str) -> Result<IpAddr, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| "expected an IP address such as 127.0.0.1, 0.0.0.0 or ::1".to_owned())
}

/// A flag that has a variable.
struct Named {
    /// `--port`
    flag: String,
    /// `PORT`
    variable: String,
    /// The place of its value, as text behind the variable's name in messages; `None` without a value.
    found: Option<&'static str>,
    /// Whether its value may be a secret.
    is_secret: bool,
    /// Whether the variable's value is not UTF-8.
    is_not_utf8: bool,
}

/// Makes the values in `variables` the defaults of the flags in `command`, and adds the flags to `named`.
///
/// clap's own reading of the environment is switched off, because it takes an empty variable for a value.
fn with_variables(command: Command, named: &mut Vec<Named>, variables: &Variables) -> Command {
    let mut command = command.mut_args(|arg| {
        let Some(variable) = arg.get_env().map(OsStr::to_owned) else { return arg };
        let is_secret = arg.is_hide_env_values_set();
        let found = variables.get(&variable).map(|(value, place)| (trimmed(value, is_secret), place));
        let found = found.filter(|(value, _)| !value.is_empty());
        named.push(Named {
            flag: arg.get_long().map(|long| format!("--{long}")).unwrap_or_default(),
            variable: variable.to_string_lossy().into_owned(),
            found: found.as_ref().map(|(_, place)| **place),
            is_secret,
            is_not_utf8: found.as_ref().is_some_and(|(value, _)| value.to_str().is_none()),
        });
        let arg = with_help(arg.env(Resettable::Reset), &variable.to_string_lossy());
        match found {
            Some((value, _)) => arg.default_value(value).required(false).hide_default_value(is_secret),
            None => arg,
        }
    });
    for subcommand in command.get_subcommands_mut() {
        *subcommand = with_variables(std::mem::take(subcommand), named, variables);
    }
    command
}

/// Removes white space around `value`, such as line ends of Windows. A secret may begin or end with a space and is kept.
fn trimmed(value: &OsStr, is_secret: bool) -> OsString {
    match value.to_str() {
        Some(text) if !is_secret => text.trim().into(),
        _ => value.to_owned(),
    }
}

/// Adds the variable to the flag's help, because clap does not know it any more.
fn with_help(arg: Arg, variable: &str) -> Arg {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    arg.help(format!("{help} [env: {variable}]").trim_start().to_owned())
}

/// Describes `error` in one line that names the flag if it was given, or else the variable.
fn one_line(error: &clap::Error, named: &[Named], args: &[OsString]) -> String {
    let text_of = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let setting = text_of(ContextKind::InvalidArg).and_then(|arg| {
        let flag = arg.split([' ', '=', '[']).next().unwrap_or_default().to_owned();
        named.iter().find(|named| named.flag == flag)
    });
    let (Some(setting), Some(value)) = (setting, text_of(ContextKind::InvalidValue)) else {
        let not_utf8 = named.iter().find(|named| named.is_not_utf8 && error.kind() == ErrorKind::InvalidUtf8);
        return match not_utf8 {
            Some(Named { variable, found, .. }) => {
                format!("invalid value for {variable}{}: it is not UTF-8", found.unwrap_or_default())
            }
            None => squeeze(&without_values(error.to_string(), args), named),
        };
    };
    let given = args.iter().any(|arg| {
        let arg = arg.to_string_lossy();
        arg == setting.flag || arg.strip_prefix(setting.flag.as_str()).is_some_and(|rest| rest.starts_with('='))
    });
    let name = match setting.found {
        Some(place) if !given => format!("{}{place}", setting.variable),
        _ => setting.flag.clone(),
    };
    let value = if setting.is_secret { String::new() } else { format!(" '{}'", value.escape_debug()) };
    let reason = match (std::error::Error::source(error), error.get(ContextKind::ValidValue)) {
        (Some(source), _) => source.to_string(),
        (None, Some(ContextValue::Strings(valid))) if !valid.is_empty() => format!("expected {}", valid.join(", ")),
        _ if value == " ''" => "a value is required".to_owned(),
        _ => "not a value it takes".to_owned(),
    };
    squeeze(&format!("invalid value{value} for {name}: {reason}"), named)
}

/// Masks the values among `args` that are more than a word. clap repeats an unexpected argument, which may be a database URL
/// without its flag.
fn without_values(mut text: String, args: &[OsString]) -> String {
    let is_word = |value: &str| value.chars().all(|char| char.is_alphanumeric() || "-_".contains(char));
    for arg in args.iter().skip(1).map(|arg| arg.to_string_lossy()) {
        let value = if arg.starts_with('-') { arg.split_once('=').map_or("", |(_, value)| value) } else { &arg };
        if !is_word(value) {
            text = text.replace(value, "…");
        }
    }
    text
}

/// Reduces clap's `text` to one line without the usage, and adds the variable to each missing flag.
fn squeeze(text: &str, named: &[Named]) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let text = text.split("\n\nUsage:").next().unwrap_or_default();
    let text = text.split("\n\nFor more information").next().unwrap_or_default();
    let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    if text.contains("required arguments were not provided") {
        for word in &mut words {
            if let Some(named) = named.iter().find(|named| named.flag == *word) {
                word.push_str(&format!(" (or {})", named.variable));
            }
        }
    }
    words.join(" ")
}
