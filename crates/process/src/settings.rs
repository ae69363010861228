//! Settings from flags, the environment and a `.env` file, in this order, into a clap struct.
//!
//! A wrong one stops the start with one line that names it. An environment variable set to nothing counts as unset, as
//! compose files and shells set what they mean to leave out. The process's own environment is read and never changed:
//! what `.env` says reaches the settings, and nothing else. No line repeats a value that may be a secret.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{Write as _, stdout};
use std::net::IpAddr;
use std::process::exit;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, Parser};

use crate::Variables;

/// The exit status of a start with a wrong setting, as clap has it.
const USAGE_STATUS: i32 = 2;

/// Why there are no settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoSettings {
    /// Help or the version was asked for: this text is for stdout.
    Asked(String),
    /// Something is wrong: this one line, without `error:` before it, says what.
    Wrong(String),
}

/// The settings of this process, and the variables that they came from. Prints help, the version or one line about what is
/// wrong, and exits, if there are none.
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

/// The settings that `args` (the program's name first) and `variables` come to. Has no effect on the process.
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

/// A flag that a variable stands for.
struct Named {
    /// `--port`
    flag: String,
    /// `PORT`
    variable: String,
    /// Where its value was found, if it was: text that follows the variable's name.
    found: Option<&'static str>,
    /// Its value may be a secret.
    is_secret: bool,
    /// Its variable's value is not UTF-8.
    is_not_utf8: bool,
}

/// `command`, taking what is found in `variables` where a flag is not given.
///
/// clap would read the process's environment by itself, and take a variable set to nothing for a value. So its own
/// reading is switched off, and what was found stands in as the default.
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

/// `value` without the white space around it, which files with the line ends of Windows and `echo` leave there. A secret may
/// begin or end with a space.
fn trimmed(value: &OsStr, is_secret: bool) -> OsString {
    match value.to_str() {
        Some(text) if !is_secret => text.trim().into(),
        _ => value.to_owned(),
    }
}

/// Names the variable in the flag's help, as clap no longer does.
fn with_help(arg: Arg, variable: &str) -> Arg {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    arg.help(format!("{help} [env: {variable}]").trim_start().to_owned())
}

/// What `error` says, in one line, in the words the operator used: the flag if it was given, else the variable.
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

/// `text` without the values among `args` that are more than a word. clap repeats an argument that it has no use for, such as
/// a database URL whose flag was forgotten.
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

/// `text` in one line, without clap's usage, and with the variable beside each flag it misses.
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
