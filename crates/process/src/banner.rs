//! The banner on a terminal at the start. A pipe or a log collector gets none.

use std::io::{IsTerminal as _, Write as _, stdout};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// How long the start waits for a terminal that is stopped, for example by Ctrl-S.
const PATIENCE: Duration = Duration::from_millis(500);

/// Prints `title` and `rows` of a label and a value in a box, if stdout is a terminal.
///
/// A row with an empty label continues the row above it. A row with neither label nor value is empty.
pub fn print_banner(title: &str, rows: &[(&str, String)]) {
    if !stdout().is_terminal() {
        return;
    }
    let text = render(title, rows);
    let (written, wait) = channel::<()>();
    // The service starts even if the banner cannot be printed.
    let _ = thread::Builder::new().name("banner".to_owned()).spawn(move || {
        let mut out = stdout();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        drop(written);
    });
    let _ = wait.recv_timeout(PATIENCE);
}

fn render(title: &str, rows: &[(&str, String)]) -> String {
    let width = |text: &str| text.chars().count();
    let label_width = rows.iter().map(|(label, _)| width(label)).max().unwrap_or(0);
    let lines: Vec<String> = rows.iter().map(|(label, value)| format!("{label:<label_width$}  {value}")).collect();
    let inner_width = lines.iter().map(|line| width(line.trim_end())).chain([width(title) + 2]).max().unwrap_or(0);

    let mut text = format!("\n╭─ {title} {}╮\n", "─".repeat(inner_width - width(title) - 1));
    for line in lines {
        text.push_str(&format!("│ {:<inner_width$} │\n", line.trim_end()));
    }
    text.push_str(&format!("╰{}╯\n\n", "─".repeat(inner_width + 2)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_box_fits_what_is_in_it() {
        let rows = [
            ("Accounts", "http://127.0.0.1:8081".to_owned()),
            ("Data", "./data".to_owned()),
            ("", String::new()),
            ("Try", "curl http://127.0.0.1:8081/health".to_owned()),
        ];
        let expected = "
╭─ Tandem 0.1.0 ──────────────────────────────╮
│ Accounts  http://127.0.0.1:8081             │
│ Data      ./data                            │
│                                             │
│ Try       curl http://127.0.0.1:8081/health │
╰─────────────────────────────────────────────╯

";
        assert_eq!(render("Tandem 0.1.0", &rows), expected);
    }

    #[test]
    fn a_long_title_fits_too() {
        assert_eq!(render("Tandem", &[]), "\n╭─ Tandem ─╮\n╰──────────╯\n\n");
    }
}
