//! `tandem keys`: changes and lists the file of API keys (docs/operations/authentication.md).

use std::io::{Write as _, stdout};

use access::{Key, create_key, list_keys, revoke_key};
use jiff::Timestamp;

use crate::settings::KeysCommand;

/// Runs the command and exits.
pub(crate) fn run(command: &KeysCommand) -> ! {
    let status = match execute(command) {
        Ok(output) => {
            // Whoever does not read the output has closed it.
            let _ = stdout().write_all(output.as_bytes());
            0
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            1
        }
    };
    process::exit(status)
}

/// Returns the text for stdout.
fn execute(command: &KeysCommand) -> anyhow::Result<String> {
    match command {
        KeysCommand::Create { file, name, scopes, expires } => {
            let expires = expires.map(|validity| Timestamp::now().checked_add(validity)).transpose()?;
            let (text, key) = create_key(file, name, *scopes, expires)?;
            eprintln!("The key of {}, id {}. It is not shown again:", key.name, key.id);
            Ok(format!("{text}\n"))
        }
        KeysCommand::List { file } => Ok(table(&list_keys(file)?)),
        KeysCommand::Revoke { file, id } => {
            // The whole key is a mistake that is easy to make, and that no message may repeat.
            let id = id.strip_prefix("tdm_").and_then(|key| key.split_once('_')).map_or(&**id, |(id, _)| id);
            let key = revoke_key(file, id)?;
            eprintln!("The key {} of {} is revoked. Running services refuse it within 5 seconds.", key.id, key.name);
            Ok(String::new())
        }
    }
}

/// A line for each key.
fn table(keys: &[Key]) -> String {
    let now = Timestamp::now();
    let row = |key: &Key| {
        let expires = match key.expires {
            None => "never".to_owned(),
            Some(expires) if key.has_expired(now) => format!("{expires:.0} (expired)"),
            Some(expires) => format!("{expires:.0}"),
        };
        [key.id.clone(), key.name.to_string(), key.scopes.to_string(), expires]
    };
    let head = ["ID", "NAME", "SCOPES", "EXPIRES"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(keys.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (id, name, scopes) = (width(0), width(1), width(2));
    let line = |row: &[String; 4]| format!("{:<id$}  {:<name$}  {:<scopes$}  {}\n", row[0], row[1], row[2], row[3]);
    rows.iter().map(line).collect()
}
