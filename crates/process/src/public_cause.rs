//! Causes of failures without private details.

/// Reduces `cause` to what `/readyz` shows to everyone: paths become file names, and quoted text, in which PostgreSQL names
/// users and databases, becomes `…`. The log has the full text.
pub fn public_cause(cause: &str) -> String {
    let parts = cause.split('"').enumerate().map(|(index, part)| if index % 2 == 0 { part } else { "…" });
    let unquoted = parts.collect::<Vec<_>>().join("\"");
    unquoted.split(": ").map(without_folders).collect::<Vec<_>>().join(": ")
}

/// Removes everything from the first path's beginning to the last `/`, because a folder's name may contain spaces.
fn without_folders(text: &str) -> String {
    let begins_path = |at: usize| {
        let is_apart =
            text[..at].chars().next_back().is_none_or(|before| !before.is_alphanumeric() && !"./:".contains(before));
        is_apart && ["/", "./", "../", "~/"].iter().any(|start| text[at..].starts_with(start))
    };
    let start = text.char_indices().map(|(at, _)| at).find(|at| begins_path(*at));
    match (start, text.rfind('/')) {
        (Some(start), Some(end)) => format!("{}{}", &text[..start], &text[end + 1..]),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_names_files_and_neither_folders_nor_users() {
        for (cause, shown) in [
            (
                "the event log is damaged: /srv/my data/event-log.db: malformed",
                "the event log is damaged: event-log.db: malformed",
            ),
            ("./data/event-log.db: disk is full", "event-log.db: disk is full"),
            ("unable to open database file: /srv/card.db", "unable to open database file: card.db"),
            ("cannot open '/srv/a/card.db' (/srv/b)", "cannot open 'b)"),
            ("password authentication failed for user \"bob\"", "password authentication failed for user \"…\""),
            ("no entry for host \"::1\", user \"bob\"", "no entry for host \"…\", user \"…\""),
            ("ssl://broker:9093/bootstrap: Disconnected", "ssl://broker:9093/bootstrap: Disconnected"),
            ("too many requests and/or waits", "too many requests and/or waits"),
            ("", ""),
        ] {
            assert_eq!(public_cause(cause), shown);
        }
    }
}
