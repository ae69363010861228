//! `deploy/compose.yaml` gives the services settings that they have. That it starts needs a container engine, and is not
//! shown here.

use std::path::Path;
use std::process::Command;

use test_harness::{binary, output_of};

#[test]
fn the_services_know_every_setting_of_the_compose_file() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/compose.yaml");
    let file = std::fs::read_to_string(path).expect("the compose file");
    // What the services share stands before the servers and their own settings.
    let (ours, _) = file.split_once("\nservices:\n").expect("services");
    let names = ours.lines().filter_map(|line| line.trim().split_once(": ").map(|(name, _)| name));
    let names: Vec<_> =
        names.filter(|name| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')).collect();
    assert!(names.contains(&"DATABASE_URL") && names.contains(&"KAFKA_BROKERS"), "{names:?}");
    let help = ["account-service", "card-service"].map(|name| {
        let output = output_of(Command::new(binary(name)).arg("--help").env_clear());
        String::from_utf8(output.stdout).expect("text")
    });
    for name in names {
        let known = help.iter().any(|help| help.contains(&format!("[env: {name}]")));
        assert!(known, "no service has the setting {name}");
    }
}
